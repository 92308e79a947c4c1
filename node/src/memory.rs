//! Huge pages for a large state, and none for a small one.
//!
//! With 100,000 nodes the core places tasks a quarter faster if the state is in huge pages, for nearly each look at it is
//! at another page. An idle swarmd would take twice the memory.

use std::{fs, time::Duration};

use nix::sys::prctl;

/// A process with so many bytes in memory is large.
pub(crate) const LARGE_BYTES: u64 = 256 << 20;
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Declines huge pages. To be called first of all: the allocator would take some for its first few bytes.
pub(crate) fn start_small() {
    allow_huge_pages(false);
}

/// Allows huge pages once the process has so many bytes in memory, and ends then.
pub(crate) async fn follow_growth(large_bytes: u64) {
    while let Some(bytes) = resident_bytes() {
        if bytes >= large_bytes {
            return allow_huge_pages(true);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn allow_huge_pages(allow: bool) {
    // Nothing but speed depends on it.
    if let Err(e) = prctl::set_thp_disable(!allow) {
        tracing::debug!("huge pages cannot be {}: {e}", if allow { "allowed" } else { "declined" });
    }
}

/// What this process has in memory; none if the kernel does not say.
fn resident_bytes() -> Option<u64> {
    parse_resident(&fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        assert_eq!(parse_resident("Name:\tswarmd\nVmRSS:\t   26216 kB\nRssAnon:\t 4 kB\n"), Some(26_216 * 1024));
        for text in ["", "VmRSS:", "VmRSS:\t12 MB", "VmRSS:\t18446744073709551615 kB", "VmRSS:\t-1 kB"] {
            assert_eq!(parse_resident(text), None, "{text:?}");
        }
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_large_process_has_huge_pages() {
        start_small();
        let growth = tokio::time::timeout(10 * LOOK, follow_growth(u64::MAX));
        assert!(growth.await.is_err(), "no process has so much memory");
        assert_eq!(prctl::get_thp_disable(), Ok(true));
        follow_growth(1).await;
        assert_eq!(prctl::get_thp_disable(), Ok(false));
    }
}
