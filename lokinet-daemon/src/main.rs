//! The `lokinet` program. What it is made of lies in the library beside it, so that labs can play every part.

use std::process::ExitCode;

fn main() -> ExitCode {
    lokinet_daemon::cli::main()
}
