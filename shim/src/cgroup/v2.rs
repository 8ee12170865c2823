//! What a container uses, by cgroups of version 2: `io.containerd.cgroups.v2.Metrics`.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    RdmaEntry, RdmaStat,
};
use containerd_shim_protos::protobuf::MessageField;

use super::files::{Folder, copy, huge_page_sizes, number};

/// Statistics of all controllers; of one that is off they are 0.
pub(super) fn metrics(folder: &Folder) -> Metrics {
    Metrics {
        pids: MessageField::some(PidsStat {
            current: folder.number("pids.current"),
            limit: folder.number("pids.max"),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu(folder)),
        memory: MessageField::some(memory(folder)),
        memory_events: folder.has("memory.events").then(|| memory_events(folder)).into(),
        io: MessageField::some(IOStat {
            usage: folder.text("io.stat").lines().filter_map(io_entry).collect(),
            psi: pressure(folder, "io.pressure"),
            ..Default::default()
        }),
        rdma: MessageField::some(RdmaStat {
            current: rdma_entries(&folder.text("rdma.current")),
            limit: rdma_entries(&folder.text("rdma.max")),
            ..Default::default()
        }),
        hugetlb: hugetlb(folder),
        ..Default::default()
    }
}

fn cpu(folder: &Folder) -> CPUStat {
    let stat = folder.keyed("cpu.stat");
    CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        psi: pressure(folder, "cpu.pressure"),
        ..Default::default()
    }
}

fn memory(folder: &Folder) -> MemoryStat {
    let mut memory = MemoryStat {
        usage: folder.number("memory.current"),
        usage_limit: folder.number("memory.max"),
        max_usage: folder.number("memory.peak"),
        swap_usage: folder.number("memory.swap.current"),
        swap_limit: folder.number("memory.swap.max"),
        swap_max_usage: folder.number("memory.swap.peak"),
        psi: pressure(folder, "memory.pressure"),
        ..Default::default()
    };
    let stat = folder.keyed("memory.stat");
    copy! { stat => memory {
        anon, file, kernel_stack, slab, sock, shmem, file_mapped, file_dirty, file_writeback,
        anon_thp, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        slab_reclaimable, slab_unreclaimable, pgfault, pgmajfault, workingset_refault,
        workingset_activate, workingset_nodereclaim, pgrefill, pgscan, pgsteal, pgactivate,
        pgdeactivate, pglazyfree, pglazyfreed, thp_fault_alloc, thp_collapse_alloc,
    } }
    memory
}

fn memory_events(folder: &Folder) -> MemoryEvents {
    let events = folder.keyed("memory.events");
    MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
        ..Default::default()
    }
}

/// `MAJOR:MINOR KEY=VALUE ...`
fn io_entry(line: &str) -> Option<IOEntry> {
    let (device, values) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let value = |key: &str| {
        let mut pairs = values.split(' ').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map_or(0, |(_, value)| number(value))
    };
    Some(IOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        rbytes: value("rbytes"),
        wbytes: value("wbytes"),
        rios: value("rios"),
        wios: value("wios"),
        ..Default::default()
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(folder: &Folder, name: &str) -> MessageField<PSIStats> {
    let text = folder.text(name);
    let of = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind));
        line.map(psi_data).into()
    };
    let stats = (!text.is_empty()).then(|| PSIStats {
        some: of("some "),
        full: of("full "),
        ..Default::default()
    });
    stats.into()
}

fn psi_data(values: &str) -> PSIData {
    let value = |key: &str| {
        let mut pairs = values.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let average = |key: &str| value(key).and_then(|value| value.parse().ok()).unwrap_or(0.0);
    PSIData {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: value("total").map_or(0, number),
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

fn hugetlb(folder: &Folder) -> Vec<HugeTlbStat> {
    let stat = |pagesize: String| HugeTlbStat {
        current: folder.number(&format!("hugetlb.{pagesize}.current")),
        max: folder.number(&format!("hugetlb.{pagesize}.max")),
        failcnt: folder.keyed(&format!("hugetlb.{pagesize}.events")).get("max"),
        pagesize,
        ..Default::default()
    };
    huge_page_sizes().into_iter().map(stat).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::files::tests::folder;
    use super::*;

    #[test]
    fn tells_what_the_files_tell() {
        let (_dir, folder) = folder(&[
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_bursts 4\n",
            ),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            (
                "memory.stat",
                "anon 1\nthp_collapse_alloc 9\nworkingset_refault_anon 5\n",
            ),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            (
                "io.stat",
                "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nrubbish\n",
            ),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=max\n"),
        ]);
        let metrics = metrics(&folder);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, u64::MAX));
        assert_eq!((metrics.cpu.usage_usec, metrics.cpu.nr_bursts), (30, 4));
        let some = &metrics.cpu.psi.some;
        assert_eq!((some.avg10, some.avg300, some.total), (1.5, 0.25, 77));
        assert!(metrics.cpu.psi.full.is_none() && metrics.memory.psi.is_none());
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (4096, u64::MAX)
        );
        assert_eq!((metrics.memory.anon, metrics.memory.thp_collapse_alloc), (1, 9));
        assert_eq!(
            (metrics.memory_events.oom, metrics.memory_events.oom_kill),
            (2, 1)
        );
        let io = &metrics.io.usage[0];
        assert_eq!((io.major, io.minor, io.rbytes, io.wios), (254, 0, 1, 4));
        let rdma = &metrics.rdma.current[0];
        assert_eq!(
            (rdma.device.as_str(), rdma.hca_handles, rdma.hca_objects),
            ("mlx4_0", 2, u32::MAX)
        );
    }

    #[test]
    fn a_controller_that_is_off_tells_nothing() {
        let (_dir, folder) = folder(&[]);
        let metrics = metrics(&folder);
        assert_eq!(metrics.memory.usage, 0);
        assert!(metrics.memory_events.is_none() && metrics.io.usage.is_empty());
    }
}
