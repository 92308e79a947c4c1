//! A Docker Engine for tests, and a small image in it.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "test code")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bollard::{
    API_DEFAULT_VERSION, Docker, body_full,
    container::LogOutput,
    models::ContainerInspectResponse,
    query_parameters::{
        CreateImageOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use swarm_agent::{DockerExecutor, Executor};
use swarm_model::{NodeId, TaskId};
use tokio::sync::oneshot;

/// The image that [`import_image`] makes.
pub const IMAGE: &str = "swarm-agent-test:6";

const SOURCE: &str = include_str!("../fixture/app.rs");

/// The folder for the files of tasks. It is in memory, which secrets need.
pub fn files_dir() -> PathBuf {
    PathBuf::from(format!("/dev/shm/swarm-agent-test-{}", std::process::id()))
}

/// An engine.
pub struct Engine {
    pub executor: Arc<dyn Executor>,
    pub client: Docker,
}

impl Engine {
    /// The engine that the environment names, or none, saying so. Under `CI=true` there must be one.
    pub async fn of_this_machine() -> Option<Self> {
        let address = std::env::var("SWARM_TEST_DOCKER").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let executor = DockerExecutor::new(&address, files_dir()).expect("SWARM_TEST_DOCKER is a Unix socket");
        if let Err(error) = executor.ping().await {
            assert!(!ci(), "no Docker Engine at {address}, and CI needs one: {error}");
            eprintln!("SKIPPED: no Docker Engine at {address}; set SWARM_TEST_DOCKER=unix:///… ({error})");
            return None;
        }
        let engine = Self::at(&address);
        engine.import_image().await;
        Some(engine)
    }

    /// The engine at an address.
    pub fn at(address: &str) -> Self {
        let executor = Arc::new(DockerExecutor::new(address, files_dir()).expect("a Unix socket"));
        let client = Docker::connect_with_unix(address, 120, API_DEFAULT_VERSION).expect("a client");
        Self { executor, client }
    }

    /// Makes the image unless it is there. It holds one static program.
    pub async fn import_image(&self) {
        if self.client.inspect_image(IMAGE).await.is_ok() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("app.rs");
        std::fs::write(&source, SOURCE).unwrap();
        let app = folder.path().join("app");
        run(Command::new("rustc")
            .args(["--edition=2024", "-Copt-level=1", "-Ctarget-feature=+crt-static", "-o"])
            .args([&app, &source]));
        let tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "app"]).output().expect("tar");
        let (name, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(tag).build();
        let mut progress = self.client.create_image(Some(options), Some(body_full(tar.stdout.into())), None);
        while let Some(step) = progress.next().await {
            step.expect("the image is imported");
        }
    }

    /// Inspects the container of a task.
    pub async fn container(&self, task: TaskId) -> Option<ContainerInspectResponse> {
        let name = format!("web.1.{task}");
        self.client.inspect_container(&name, None::<InspectContainerOptions>).await.ok()
    }

    /// Id of the container of a task.
    pub async fn id(&self, task: TaskId) -> String {
        self.container(task).await.and_then(|c| c.id).expect("a container")
    }

    /// Restarts a container behind the agent's back, as `docker restart` does.
    pub async fn restart(&self, id: &str) {
        let options = RestartContainerOptionsBuilder::new().t(10).build();
        self.client.restart_container(id, Some(options)).await.expect("a restart");
    }

    /// Starts a container behind the agent's back, as `docker start` does.
    pub async fn start(&self, id: &str) {
        self.client.start_container(id, None::<StartContainerOptions>).await.expect("a start");
    }

    /// Waits until a container does not run.
    pub async fn stopped(&self, id: &str) {
        let mut ends = self.client.wait_container(id, None::<WaitContainerOptions>);
        // The exit code comes as an error if it is not zero.
        let _ = crate::common::within("the container to stop", ends.next()).await;
    }

    /// Waits until a task has written a line.
    pub async fn said(&self, task: TaskId, line: &str) {
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).build();
        let lines = self.client.logs(&self.id(task).await, Some(options));
        let is_it = |said: &Result<_, _>| said.as_ref().is_ok_and(|said: &LogOutput| said.to_string().trim() == line);
        let found = lines.filter(|said| std::future::ready(is_it(said)));
        let said = crate::common::within(line, std::pin::pin!(found).next()).await;
        assert!(said.is_some(), "the container ended without {line:?}");
    }

    /// Number of containers with a node's label.
    pub async fn count(&self, node: NodeId) -> usize {
        self.executor.list(node).await.expect("a listing").len()
    }

    /// Removes what a test left, also when it failed.
    pub async fn clean_up(&self, node: NodeId) {
        let label = [("label".to_owned(), vec![format!("com.docker.swarm.node.id={node}")])];
        let options = ListContainersOptionsBuilder::new().all(true).filters(&label.into_iter().collect()).build();
        for container in self.client.list_containers(Some(options)).await.expect("a listing") {
            let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            let _ = self.client.remove_container(&container.id.unwrap_or_default(), Some(force)).await;
        }
    }
}

/// Whether this is a run that must not skip anything.
pub fn ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An engine of the test's own, which it may kill. Its containerd is started apart, so that a killed engine can be
/// started again at once.
pub struct PrivateEngine {
    folder: tempfile::TempDir,
    containerd: Child,
    dockerd: Option<Child>,
}

impl PrivateEngine {
    /// Starts one, or says why it cannot. Needs root and the programs `dockerd` and `containerd`.
    pub async fn start() -> Option<Self> {
        let available =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
        if !(root && available("dockerd") && available("containerd")) {
            assert!(!ci(), "CI needs root, dockerd and containerd for this test");
            eprintln!("SKIPPED: an engine of the test's own needs root, dockerd and containerd");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let containerd =
            quiet(Command::new("containerd").arg("--root").arg(at("c-root")).arg("--state").arg(at("c-state")))
                .arg("--address")
                .arg(at("c.sock"))
                .spawn()
                .expect("containerd starts");
        let mut engine = Self { containerd, dockerd: None, folder };
        crate::common::within("containerd", logged(&mut engine.containerd, "containerd successfully booted")).await;
        engine.start_dockerd().await;
        Some(engine)
    }

    /// Address of the engine.
    pub fn address(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    /// Starts the engine in a network namespace of its own: one without a bridge would take away that of the others.
    pub async fn start_dockerd(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        let dockerd = quiet(
            Command::new("unshare")
                .args(["--net", "dockerd", "--data-root"])
                .arg(at("data"))
                .arg("--exec-root")
                .arg(at("exec")),
        )
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--pidfile"])
        .arg(at("docker.pid"))
        .arg("--containerd")
        .arg(at("c.sock"))
        .arg("--host")
        .arg(self.address())
        .spawn()
        .expect("dockerd starts");
        crate::common::within("dockerd", logged(self.dockerd.insert(dockerd), "API listen on")).await;
    }

    /// Sends the engine a signal (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let pid = self.dockerd.as_ref().expect("a running engine").id().to_string();
        run(Command::new("kill").args([&format!("-{name}"), &pid]));
    }

    /// Kills the engine with SIGKILL. Its containers stay.
    pub fn kill(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            let _ = dockerd.kill();
            let _ = dockerd.wait();
        }
        let _ = std::fs::remove_file(self.folder.path().join("docker.pid"));
    }
}

/// Waits until a program has written a line with these words to its log, and lets it write on.
async fn logged(program: &mut Child, words: &'static str) {
    let log = BufReader::new(program.stderr.take().expect("it is piped"));
    let (found, seen) = oneshot::channel();
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in log.lines().map_while(Result::ok) {
            if let Some(found) = found.take_if(|_| line.contains(words)) {
                let _ = found.send(());
            }
        }
    });
    seen.await.unwrap_or_else(|_| panic!("the program ended without a line with {words:?}"));
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if let Some(dockerd) = &mut self.dockerd {
            // Let it end its mounts itself; a stopped one has to go on for that.
            let pid = dockerd.id().to_string();
            let _ = Command::new("kill").args(["-CONT", &pid]).output();
            let _ = Command::new("kill").args(["-TERM", &pid]).output();
            let _ = dockerd.wait();
        }
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        // A killed engine leaves mounts, and those would keep the folder.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(place).starts_with(self.folder.path()) {
                let _ = Command::new("umount").args(["-l", place]).output();
            }
        }
    }
}
