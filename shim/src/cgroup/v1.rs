//! What a container uses, by cgroups of version 1: `io.containerd.cgroups.v1.Metrics`.

use std::fs;

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use containerd_shim_protos::protobuf::MessageField;

use super::Controllers;
use super::files::{Folder, copy, huge_page_sizes, number};

/// The kernel counts user and system time in these, whatever its own ticks are.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Statistics of every controller that the container is in.
pub(super) fn metrics(controllers: &Controllers) -> Metrics {
    let memory = controllers.get("memory");
    Metrics {
        hugetlb: controllers.get("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: controllers.get("pids").map(pids).into(),
        cpu: MessageField::some(CPUStat {
            usage: MessageField::some(controllers.get("cpuacct").map(usage).unwrap_or_default()),
            throttling: MessageField::some(controllers.get("cpu").map(throttling).unwrap_or_default()),
            ..Default::default()
        }),
        memory: memory.map(memory_stat).into(),
        memory_oom_control: memory.map(oom_control).into(),
        blkio: controllers.get("blkio").map(blkio).into(),
        rdma: controllers.get("rdma").map(rdma).into(),
        ..Default::default()
    }
}

/// Without a limit containerd expects 0 here.
fn pids(folder: &Folder) -> PidsStat {
    PidsStat {
        current: folder.number("pids.current"),
        limit: folder.text("pids.max").trim().parse().unwrap_or(0),
        ..Default::default()
    }
}

fn usage(folder: &Folder) -> CPUUsage {
    let ticks = folder.keyed("cpuacct.stat");
    let per_cpu = folder.text("cpuacct.usage_percpu");
    CPUUsage {
        total: folder.number("cpuacct.usage"),
        kernel: ticks.get("system").saturating_mul(NANOSECONDS_PER_TICK),
        user: ticks.get("user").saturating_mul(NANOSECONDS_PER_TICK),
        per_cpu: per_cpu.split_whitespace().map(number).collect(),
        ..Default::default()
    }
}

fn throttling(folder: &Folder) -> Throttle {
    let stat = folder.keyed("cpu.stat");
    Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
        ..Default::default()
    }
}

fn memory_stat(folder: &Folder) -> MemoryStat {
    let mut memory = MemoryStat {
        usage: MessageField::some(memory_entry(folder, "memory")),
        swap: MessageField::some(memory_entry(folder, "memory.memsw")),
        kernel: MessageField::some(memory_entry(folder, "memory.kmem")),
        kernel_tcp: MessageField::some(memory_entry(folder, "memory.kmem.tcp")),
        ..Default::default()
    };
    let stat = folder.keyed("memory.stat");
    copy! { stat => memory {
        cache, rss, rss_huge, mapped_file, dirty, writeback, pg_pg_in = "pgpgin",
        pg_pg_out = "pgpgout", pg_fault = "pgfault", pg_maj_fault = "pgmajfault", inactive_anon,
        active_anon, inactive_file, active_file, unevictable, hierarchical_memory_limit,
        hierarchical_swap_limit = "hierarchical_memsw_limit", total_cache, total_rss,
        total_rss_huge, total_mapped_file, total_dirty, total_writeback,
        total_pg_pg_in = "total_pgpgin", total_pg_pg_out = "total_pgpgout",
        total_pg_fault = "total_pgfault", total_pg_maj_fault = "total_pgmajfault",
        total_inactive_anon, total_active_anon, total_inactive_file, total_active_file,
        total_unevictable,
    } }
    memory
}

fn memory_entry(folder: &Folder, prefix: &str) -> MemoryEntry {
    let number = |name: &str| folder.number(&format!("{prefix}.{name}"));
    MemoryEntry {
        limit: number("limit_in_bytes"),
        usage: number("usage_in_bytes"),
        max: number("max_usage_in_bytes"),
        failcnt: number("failcnt"),
        ..Default::default()
    }
}

fn oom_control(folder: &Folder) -> MemoryOomControl {
    let control = folder.keyed("memory.oom_control");
    MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
        ..Default::default()
    }
}

fn hugetlb(folder: &Folder) -> Vec<HugetlbStat> {
    let stat = |pagesize: String| HugetlbStat {
        usage: folder.number(&format!("hugetlb.{pagesize}.usage_in_bytes")),
        max: folder.number(&format!("hugetlb.{pagesize}.max_usage_in_bytes")),
        failcnt: folder.number(&format!("hugetlb.{pagesize}.failcnt")),
        pagesize,
        ..Default::default()
    };
    huge_page_sizes().into_iter().map(stat).collect()
}

/// An old scheduler keeps its own counters; those of the block layer are always there.
fn blkio(folder: &Folder) -> BlkIOStat {
    let devices = device_names(&fs::read_to_string("/proc/partitions").unwrap_or_default());
    let entries = |name: &str| blkio_entries(&folder.text(name), &devices);
    let scheduler = BlkIOStat {
        io_service_bytes_recursive: entries("blkio.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.io_serviced_recursive"),
        io_queued_recursive: entries("blkio.io_queued_recursive"),
        io_service_time_recursive: entries("blkio.io_service_time_recursive"),
        io_wait_time_recursive: entries("blkio.io_wait_time_recursive"),
        io_merged_recursive: entries("blkio.io_merged_recursive"),
        io_time_recursive: entries("blkio.time_recursive"),
        sectors_recursive: entries("blkio.sectors_recursive"),
        ..Default::default()
    };
    if scheduler != BlkIOStat::default() {
        return scheduler;
    }
    BlkIOStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes"),
        io_serviced_recursive: entries("blkio.throttle.io_serviced"),
        ..Default::default()
    }
}

/// `MAJOR:MINOR OPERATION VALUE`, or without the operation; a total of all has no device.
fn blkio_entries(text: &str, devices: &[(u64, u64, String)]) -> Vec<BlkIOEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        let device = devices
            .iter()
            .find(|device| (device.0, device.1) == (major, minor));
        Some(BlkIOEntry {
            op: op.to_owned(),
            device: device.map(|device| device.2.clone()).unwrap_or_default(),
            major,
            minor,
            value: number(value),
            ..Default::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Numbers and paths of block devices: `MAJOR MINOR BLOCKS NAME` below a heading.
fn device_names(partitions: &str) -> Vec<(u64, u64, String)> {
    let device = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((major, minor, format!("/dev/{}", words.nth(1)?)))
    };
    partitions.lines().filter_map(device).collect()
}

fn rdma(folder: &Folder) -> RdmaStat {
    RdmaStat {
        current: rdma_entries(&folder.text("rdma.current")),
        limit: rdma_entries(&folder.text("rdma.max")),
        ..Default::default()
    }
}

fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let entries = super::files::rdma(text);
    entries
        .map(|(device, hca_handles, hca_objects)| RdmaEntry {
            device,
            hca_handles,
            hca_objects,
            ..Default::default()
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::HashMap;

    use super::super::files::tests::folder;
    use super::*;

    #[test]
    fn tells_time_in_nanoseconds() {
        let (_dir, cpuacct) = folder(&[
            ("cpuacct.usage", "123456789\n"),
            ("cpuacct.stat", "user 7\nsystem 3\n"),
            ("cpuacct.usage_percpu", "100 23456789 \n"),
        ]);
        let metrics = metrics(&HashMap::from([("cpuacct".to_owned(), cpuacct)]));
        let usage = &metrics.cpu.usage;
        assert_eq!(
            (usage.total, usage.user, usage.kernel),
            (123_456_789, 70_000_000, 30_000_000)
        );
        assert_eq!(usage.per_cpu, [100, 23_456_789]);
        assert!(
            metrics.memory.is_none() && metrics.pids.is_none(),
            "not of what is not there"
        );
    }

    #[test]
    fn tells_all_of_memory() {
        let (_dir, memory) = folder(&[
            ("memory.usage_in_bytes", "4096"),
            ("memory.memsw.limit_in_bytes", "8192"),
            (
                "memory.stat",
                "cache 1\npgpgin 2\nhierarchical_memsw_limit 3\ntotal_unevictable 4\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 1\noom_kill 5\n",
            ),
        ]);
        let metrics = metrics(&HashMap::from([("memory".to_owned(), memory)]));
        let memory = &metrics.memory;
        assert_eq!(
            (memory.usage.usage, memory.swap.limit, memory.kernel.usage),
            (4096, 8192, 0)
        );
        assert_eq!((memory.cache, memory.pg_pg_in), (1, 2));
        assert_eq!((memory.hierarchical_swap_limit, memory.total_unevictable), (3, 4));
        let oom = &metrics.memory_oom_control;
        assert_eq!((oom.under_oom, oom.oom_kill), (1, 5));
    }

    #[test]
    fn tells_what_each_disk_did() {
        let devices = device_names("major minor  #blocks  name\n\n 254        0  264241152 vda\n");
        let text = "254:0 Read 10\n254:0 Write 20\n8:1 33\nTotal 63\nrubbish\n1:x Read 1\n";
        let entries = blkio_entries(text, &devices);
        assert_eq!(entries.len(), 3);
        assert_eq!(
            (entries[0].op.as_str(), entries[0].device.as_str()),
            ("Read", "/dev/vda")
        );
        assert_eq!(
            (entries[1].major, entries[1].minor, entries[1].value),
            (254, 0, 20)
        );
        assert_eq!(
            (
                entries[2].op.as_str(),
                entries[2].device.as_str(),
                entries[2].value
            ),
            ("", "", 33)
        );
    }

    #[test]
    fn has_no_limit_of_processes_as_zero() {
        let (_dir, limited) = folder(&[("pids.current", "3\n"), ("pids.max", "max\n")]);
        assert_eq!((pids(&limited).current, pids(&limited).limit), (3, 0));
    }
}
