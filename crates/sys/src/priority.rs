//! How much a thread wants of the machine.

use std::io;

/// `IOPRIO_WHO_PROCESS` of ioprio_set(2); with the id 0, the calling thread.
const WHO_PROCESS: libc::c_int = 1;

/// `IOPRIO_CLASS_IDLE` in its place: the disk only when nobody else wants it.
const CLASS_IDLE: libc::c_int = 3 << 13;

/// The nice value of who yields to everybody.
const NICEST: i32 = 19;

/// Lets the calling thread run and read behind all others, for the rest of its life.
///
/// # Errors
/// As `setpriority(2)` and `ioprio_set(2)`.
pub fn lower_thread() -> io::Result<()> {
    // Linux keeps a nice value for each thread, whatever POSIX says.
    rustix::process::setpriority_process(None, NICEST)?;
    // SAFETY: ioprio_set(2) takes three integers.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowers_this_thread_and_no_other() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let lowered = std::thread::spawn(move || {
            lower_thread().unwrap();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), NICEST);
        assert_eq!(nice(), before);
    }
}
