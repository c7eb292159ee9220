//! `devnet exec`: a command inside a node. The caller walks into the network's user namespace (an ordinary user's), its PID
//! namespace, and the node's network and mounts, then starts the command and takes over its exit code.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use super::namespace;
use super::plan::Plan;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Runs `command` in `node`; returns its exit code, 128 and the signal's number where one ended it.
pub fn exec(plan: &Plan, node: &str, command: &[OsString]) -> Outcome<u8> {
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    walk(plan, node)?;
    let _ = std::env::set_current_dir(here).or_else(|_| std::env::set_current_dir("/"));
    let Some((program, arguments)) = command.split_first() else {
        return Err(Trouble::refusal(format!("what shall {node} run? lokinet devnet exec {node} -- COMMAND")));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    for outside in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET"] {
        command.env_remove(outside);
    }
    namespace::end_with_parent(&mut command);
    let mut child = command.spawn().map_err(|error| Trouble {
        what: format!("cannot run {} in {node}: {error}", program.display()),
        code: if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 },
    })?;
    namespace::leave_interrupts_to_child();
    let status = child.wait().or_trouble(|| "cannot wait for the command".into())?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn walk(plan: &Plan, node: &str) -> Outcome<()> {
    let place = plan.node(node)?;
    let pid = plan.init.as_ref().map_or(0, |init| init.pid);
    let door = |what: String| {
        let path = format!("/proc/{pid}/{what}");
        File::open(&path).or_trouble(|| format!("cannot open {path}"))
    };
    let (Some(net), Some(mounts)) = (place.net, place.mounts) else {
        return Err(Trouble::new(format!("{node} has no namespace yet")));
    };
    // All doors are opened before the first step: afterwards /proc shows another world.
    let user = door("ns/user".into())?;
    let doors = [door("ns/pid".into())?, door(format!("fd/{net}"))?, door(format!("fd/{mounts}"))?];
    let own = |path: &str| fs::read_link(Path::new(path)).ok();
    if own("/proc/self/ns/user") != own(&format!("/proc/{pid}/ns/user")) {
        namespace::walk_into(&user).or_trouble(|| "cannot enter the network's user namespace".into())?;
    }
    for door in doors {
        namespace::walk_into(&door).or_trouble(|| format!("cannot enter {node} (are you the one who made it?)"))?;
    }
    Ok(())
}
