//! What `/proc/PID/stat` says of a process (proc_pid_stat(5)).

use std::fs;
use std::io;

/// Some of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, ...; `Z` when it waits to be reaped, `X` when it is gone.
    pub state: char,
    /// Who started it, or who has it now; 0 when that is in no pid namespace of ours.
    pub parent: i32,
    /// Time on a processor in user and in kernel mode, in clock ticks (`sysconf(_SC_CLK_TCK)`),
    /// of threads that have ended, too.
    pub ticks: u64,
    /// Threads that it has.
    pub threads: u32,
}

/// Asks about a process.
///
/// # Errors
/// When there is none, or the kernel's text is not what it documents.
pub fn of(pid: i32) -> io::Result<Stat> {
    // Not text for certain: a process chooses its name.
    let line = fs::read(format!("/proc/{pid}/stat"))?;
    parse(&String::from_utf8_lossy(&line)).ok_or_else(|| {
        let what = format!("unexpected /proc/{pid}/stat");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// `PID (NAME) STATE PARENT ...`, where the name may hold anything, brackets too.
fn parse(line: &str) -> Option<Stat> {
    let (_, after_name) = line.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // The 14th and 15th field of the line, and the 20th.
    let user: u64 = fields.nth(9)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let threads = fields.nth(4)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        ticks: user.saturating_add(system),
        threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_whatever_the_process_is_called() {
        let line = "7 (a) R 1) (b) S 3 7 7 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 9 0 100 4096";
        let stat = Stat {
            state: 'S',
            parent: 3,
            ticks: 110,
            threads: 9,
        };
        assert_eq!(parse(line), Some(stat));
        let short = line.split_once(" 9 0").map(|(before, _)| before);
        for line in ["", "7 (a", "7 (a)", "7 (a) S x", short.unwrap()] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn knows_ourselves() {
        let stat = of(std::process::id().cast_signed()).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(stat.threads >= 1 && stat.state == 'S' || stat.state == 'R');
        assert!(of(-1).is_err());
    }
}
