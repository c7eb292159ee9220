//! The kernel's side of devnet: namespaces, mounts, process ends. Every `unsafe` of devnet is in this file; `init` makes the
//! namespaces with it, `enter` walks into them, `life` ends them. All of it wants a process with a single thread.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// How a reaped process ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(out, "exit code {code}"),
            Self::Signal(signal) => write!(out, "signal {signal}"),
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The effective user of this process.
pub fn uid() -> u32 {
    // SAFETY: geteuid takes nothing, cannot fail and touches no memory of ours.
    unsafe { libc::geteuid() }
}

fn gid() -> u32 {
    // SAFETY: getegid takes nothing, cannot fail and touches no memory of ours.
    unsafe { libc::getegid() }
}

/// Moves this process into a user namespace of its own, in which it is root; outside it stays who it was.
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (uid(), gid());
    unshare(libc::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// New network, mount and PID namespaces; the last one only for the children to come.
pub fn unshare_world() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWPID)
}

/// A new, empty network namespace for this process.
pub fn unshare_net() -> io::Result<()> {
    unshare(libc::CLONE_NEWNET)
}

/// A copy of the mount table for this process alone.
pub fn unshare_mounts() -> io::Result<()> {
    unshare(libc::CLONE_NEWNS)
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes flags only and touches no memory of ours.
    checked(unsafe { libc::unshare(flags) })
}

/// Walks into the namespace that `door` names (of whatever kind it is).
pub fn walk_into(door: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `door` is borrowed; kind 0 lets the kernel read the kind from it.
    checked(unsafe { libc::setns(door.as_raw_fd(), 0) })
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// From here on, mounts of this namespace stay in it.
pub fn keep_mounts_private() -> io::Result<()> {
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)
}

/// A fresh, empty file system in memory over `at`.
pub fn mount_memory(at: &Path) -> io::Result<()> {
    mount(Some(Path::new("devnet")), at, Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// A /proc that shows this PID namespace.
pub fn mount_proc() -> io::Result<()> {
    mount(Some(Path::new("proc")), Path::new("/proc"), Some("proc"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// Lets `at` show what `from` is.
pub fn mount_over(from: &Path, at: &Path) -> io::Result<()> {
    mount(Some(from), at, None, libc::MS_BIND)
}

fn mount(from: Option<&Path>, at: &Path, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    let from = from.map(text).transpose()?;
    let at = text(at)?;
    let kind = kind.map(CString::new).transpose()?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null or a NUL-terminated string that lives until the call returns; no data is passed.
    checked(unsafe { libc::mount(pointer(&from), at.as_ptr(), pointer(&kind), flags, std::ptr::null()) })
}

/// Makes the child a session of its own: no terminal, no signals of the caller's terminal.
pub fn start_session(command: &mut Command) {
    // SAFETY: between fork and exec the closure only calls setsid, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) });
    }
}

/// Makes the child end when its parent does.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the closure only calls prctl, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
    }
}

/// Lets the child walk into these network and mount namespaces, and into `home`, before it becomes the command.
/// The doors must stay open until the spawn.
pub fn start_within(command: &mut Command, net: BorrowedFd<'_>, mounts: BorrowedFd<'_>, home: &Path) -> io::Result<()> {
    let (net, mounts): (RawFd, RawFd) = (net.as_raw_fd(), mounts.as_raw_fd());
    let home = text(home)?;
    // SAFETY: between fork and exec the closure only calls setsid, setns and chdir, all async-signal-safe, on descriptors
    // that the fork copied and on a string the closure owns.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            checked(libc::setns(net, libc::CLONE_NEWNET))?;
            checked(libc::setns(mounts, libc::CLONE_NEWNS))?;
            checked(libc::chdir(home.as_ptr()))
        });
    }
    Ok(())
}

/// Takes the next ended child, if there is one, off the kernel's list.
pub fn reap() -> Option<(u32, End)> {
    let mut status = 0;
    // SAFETY: waitpid writes one int, which lives through the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let end = if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, end))
}

/// Ends a child that has not been reaped, so that its number cannot be anybody else's.
pub fn kill_child(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes two numbers and touches no memory of ours.
    checked(unsafe { libc::kill(pid, libc::SIGKILL) })
}

/// The terminal's interrupts are for the child from here on: this process only waits for it.
pub fn leave_interrupts_to_child() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: SIG_IGN installs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// A process held by descriptor: its number cannot pass to another while we look at it.
pub struct Held(OwnedFd);

impl Held {
    /// Takes hold of a process; `None` when there is none of this number.
    pub fn new(pid: u32) -> Option<Self> {
        // SAFETY: pidfd_open takes two numbers and returns a new descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the descriptor is new and nobody else's.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Kills it and waits until it is gone, with all it was the init of; false when it is still there after `millis`.
    pub fn end(&self, millis: i32) -> io::Result<bool> {
        let null = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, the siginfo pointer may be null.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), libc::SIGKILL, null, 0) };
        if sent != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH) {
            return Err(io::Error::last_os_error());
        }
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: poll reads and writes one pollfd, which lives through the call.
        Ok(unsafe { libc::poll(&raw mut poll, 1, millis) } == 1)
    }
}
