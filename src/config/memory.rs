//! How much memory the process may have, for the default of
//! `limits.max_buffered_bytes`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Limits, MIB};

const CGROUPS: &str = "/sys/fs/cgroup";
/// Of the process: the hierarchies and its place in each.
const PLACES: &str = "/proc/self/cgroup";
/// For connections, calls, code, and what allocators do not give back.
const RESERVE: u64 = 64 * MIB as u64;

/// The default for a process with these limits, where it runs.
pub(super) fn max_buffered_bytes(limits: &Limits) -> usize {
    let places = fs::read_to_string(PLACES).unwrap_or_default();
    let limit = cgroup_limit(Path::new(CGROUPS), &places);
    default_for(limits, limit)
}

fn default_for(limits: &Limits, memory: Option<u64>) -> usize {
    let default = Limits::default().max_buffered_bytes;
    let share = memory.map_or(u64::MAX, |limit| (limit / 4 * 3).saturating_sub(RESERVE));
    let fits = usize::try_from(share).map_or(default, |share| share.min(default));
    // Less would refuse requests that the other limits allow.
    let least = limits.max_request_bytes + limits.max_response_bytes;
    fits.max(least)
}

/// The lowest memory limit of the cgroups that `places` (of `/proc/self/cgroup`)
/// names and of all above them; `None` if there is none.
///
/// Of version 2 the line is `0::PLACE`, of version 1 `N:memory:PLACE`
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max`).
fn cgroup_limit(root: &Path, places: &str) -> Option<u64> {
    let limits = places.lines().flat_map(|line| {
        let (controllers, place) = line.split_once(':')?.1.split_once(':')?;
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        lowest(&mount, place, file)
    });
    limits.min()
}

/// In a container of its own cgroup namespace the place is `/`; without one the
/// place may be one that is not mounted here: then the mount is its own.
fn lowest(mount: &Path, place: &str, file: &str) -> Option<u64> {
    let own: PathBuf = mount.join(place.trim_start_matches('/'));
    own.ancestors()
        .take_while(|directory| directory.starts_with(mount))
        // `max`, the word for none, is no number.
        .filter_map(|directory| fs::read_to_string(directory.join(file)).ok())
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB_: u64 = MIB as u64;

    struct Cgroups(tempfile::TempDir);

    impl Cgroups {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn limit(&self, places: &str) -> Option<u64> {
            cgroup_limit(self.0.path(), places)
        }
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let groups = Cgroups::new(&[
            ("memory.max", "max\n"),
            ("kubepods/memory.max", "1000\n"),
            ("kubepods/pod1/memory.max", "500\n"),
            ("kubepods/pod1/c1/memory.max", "max\n"),
            ("kubepods/pod2/memory.max", "2000\n"),
        ]);
        assert_eq!(groups.limit("0::/kubepods/pod1/c1\n"), Some(500));
        assert_eq!(groups.limit("0::/kubepods/pod2\n"), Some(1000));
        // Seen from a namespace, and not mounted here.
        assert_eq!(groups.limit("0::/\n"), None);
        assert_eq!(groups.limit("0::/kubepods/pod3/c\n"), Some(1000));
        assert_eq!(groups.limit(""), None);
        assert_eq!(groups.limit("0::/../../kubepods/pod1\nnonsense\n"), None);
    }

    #[test]
    fn version_1_is_understood_and_its_no_limit_is_none_in_effect() {
        let groups = Cgroups::new(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/a/memory.limit_in_bytes", "536870912\n"),
        ]);
        let places = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/\n";
        assert_eq!(groups.limit(places), Some(512 * MIB_));
        let unlimited = groups.limit("4:memory:/\n");
        assert_eq!(
            default_for(&Limits::default(), unlimited),
            Limits::default().max_buffered_bytes
        );
    }

    #[test]
    fn the_default_leaves_room_and_serves_the_largest_request() {
        let default = |mib: u64| default_for(&Limits::default(), Some(mib * MIB_)) / MIB;
        assert_eq!(default(1024), 256);
        assert_eq!(default(512), 256);
        assert_eq!(default(256), 128);
        assert_eq!(default(128), 32);
        assert_eq!(default(64), 8);
        assert_eq!(default_for(&Limits::default(), None) / MIB, 256);
        let large = Limits {
            max_response_bytes: 400 * MIB,
            ..Limits::default()
        };
        assert_eq!(default_for(&large, None) / MIB, 404);
    }
}
