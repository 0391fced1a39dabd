//! How much memory the process may have: the limit of its cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
};

const CGROUPS: &str = "/sys/fs/cgroup";
/// The hierarchies that the process is in, and its path in each.
const OF_PROCESS: &str = "/proc/self/cgroup";

/// The memory limit of this process in bytes; `None` if there is none.
pub(super) fn cgroup_limit() -> Option<u64> {
    let paths = fs::read_to_string(OF_PROCESS).unwrap_or_default();
    lowest_limit(Path::new(CGROUPS), &paths)
}

/// The lowest memory limit of the cgroups that `paths` (the content of
/// `/proc/self/cgroup`) names and of all above them; `None` if there is none.
///
/// A line of version 2 is `0::PATH`, one of version 1 `N:memory:PATH`
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html>, `memory.max`).
fn lowest_limit(root: &Path, paths: &str) -> Option<u64> {
    let limits = paths.lines().flat_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        lowest_upwards(&mount, path, file)
    });
    limits.min()
}

/// In a container with a cgroup namespace of its own the path is `/`. Without one the
/// path may not be mounted here: then the mount is the container's own cgroup.
fn lowest_upwards(mount: &Path, path: &str, file: &str) -> Option<u64> {
    let own: PathBuf = mount.join(path.trim_start_matches('/'));
    own.ancestors()
        .take_while(|directory| directory.starts_with(mount))
        // `max`, which means no limit, is not a number.
        .filter_map(|directory| fs::read_to_string(directory.join(file)).ok())
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

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

        fn limit(&self, paths: &str) -> Option<u64> {
            lowest_limit(self.0.path(), paths)
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
    fn version_1_is_understood() {
        let groups = Cgroups::new(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/a/memory.limit_in_bytes", "536870912\n"),
        ]);
        let paths = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n0::/\n";
        assert_eq!(groups.limit(paths), Some(512 << 20));
        assert_eq!(
            groups.limit("4:memory:/\n"),
            Some(9_223_372_036_854_771_712)
        );
    }
}
