//! Network namespaces for tests, as hosts and containers.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether a test is left out: it makes network namespaces.
#[must_use]
pub fn is_skipped() -> bool {
    if thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false) {
        return false;
    }
    skip("this user may not make network namespaces")
}

/// Whether a test is left out that makes TAP devices as well.
#[must_use]
pub fn is_skipped_without_tap() -> bool {
    is_skipped() || (!Path::new("/dev/net/tun").exists() && skip("there is no /dev/net/tun"))
}

/// Says why the test of this thread is left out.
fn skip(reason: &str) -> bool {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let _ = io::stderr().write_all(format!("{name} is skipped: {reason}\n").as_bytes());
    true
}

fn enter(file: &File) {
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("a namespace can be entered");
}

/// A network namespace. The namespace goes with its last descriptor.
#[derive(Debug)]
pub struct Netns(File);

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Netns {
    /// A new one, whose loopback is up.
    ///
    /// # Panics
    /// The process may not make one ([`is_skipped`]), as all methods here panic where a test cannot go on.
    #[must_use]
    pub fn new() -> Self {
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let netns = Self(thread.join().expect("the thread ends").expect("a namespace can be made"));
        netns.run("ip link set lo up");
        netns
    }

    /// Does something in it.
    ///
    /// # Panics
    /// `act` does.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.0);
                act()
            });
            thread.join().expect("what is done in a namespace succeeds")
        })
    }

    /// Runs a future in it, on a runtime whose threads are all there.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> thread::JoinHandle<T> {
        let (file, for_threads) = (self.descriptor(), self.descriptor());
        thread::spawn(move || {
            enter(&file);
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let builder = builder.worker_threads(2).enable_all().on_thread_start(move || enter(&for_threads));
            builder.build().expect("a runtime can be made").block_on(future)
        })
    }

    /// Runs programs in the namespace, a line each. Returns their output.
    ///
    /// # Panics
    /// A program fails.
    pub fn run(&self, lines: &str) -> String {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| self.try_run(line).unwrap_or_else(|e| panic!("{e}"))).collect()
    }

    /// Runs a program in the namespace. Returns the program's output.
    ///
    /// # Errors
    /// The program failed; the text is its output.
    ///
    /// # Panics
    /// There is no such program.
    pub fn try_run(&self, line: &str) -> Result<String, String> {
        self.within(|| {
            let mut words = line.split_whitespace();
            let output = Command::new(words.next().unwrap_or_default()).args(words).output().expect("a program");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match output.status.success() {
                true => Ok(text(&output.stdout)),
                false => Err(format!("{line}: {}", text(&output.stderr))),
            }
        })
    }

    /// Whether it has a link of this name.
    #[must_use]
    pub fn has_link(&self, name: &str) -> bool {
        self.try_run(&format!("ip link show {name}")).is_ok()
    }

    /// A path that leads to it, as long as this value is there.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// The same one.
    #[must_use]
    pub fn again(&self) -> Self {
        Self(self.descriptor())
    }

    fn descriptor(&self) -> File {
        self.0.try_clone().expect("a descriptor is left")
    }

    /// Connects two namespaces by a pair of links.
    pub fn pair(&self, name: &str, other: &Self, other_name: &str) {
        // `ip` is told the namespace by a path of its own process, which is the same for all of this user.
        self.run(&format!("ip link add {name} type veth peer name {other_name} netns {}", other.path().display()));
    }
}
