//! Floor 6: the driver.
mod clock;
mod handle;
mod quic;
mod tls;
mod tun;
