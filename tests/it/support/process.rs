//! The real binary in processes of its own, on real sockets.

use std::{
    env,
    io::Write as _,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use fanfare::pb::orchestrator_service_client::OrchestratorServiceClient;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

/// No wait in a test is longer: what has not come by then does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `fanfare`. Killed when dropped.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
    log: Log,
}

/// The JSON log lines of a process, as they come.
#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<Vec<Value>>>,
    count: watch::Receiver<usize>,
}

impl Process {
    /// The demo tools on a port of their own.
    pub async fn demo_tools() -> Self {
        Self::demo_tools_at("127.0.0.1:0".parse().expect("an address")).await
    }

    /// The demo tools at `address`.
    pub async fn demo_tools_at(address: SocketAddr) -> Self {
        Self::start(&["demo-tools", "--listen", &address.to_string()]).await
    }

    /// The service, configured by `toml`, with the page for operators on a port of
    /// its own unless it says another.
    pub async fn serve(toml: &str) -> Self {
        Self::serve_in(toml, &[]).await
    }

    /// The same in an environment with these variables.
    pub async fn serve_in(toml: &str, environment: &[(&str, &str)]) -> Self {
        let toml = with_admin(toml);
        let path = toml.path().to_str().expect("a path");
        Self::start_in(&["serve", "--config", path], environment).await
    }

    /// The service, on a port of its own, with the demo tools at `tools`;
    /// `extra` is put before, for `[server]` and `[limits]` keys.
    pub async fn serve_demo(server_keys: &str, limits: &str, tools: SocketAddr) -> Self {
        let demo = fanfare::demo::config_toml(tools);
        Self::serve(&format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n{server_keys}\n[limits]\n{limits}\n{demo}"
        ))
        .await
    }

    /// The service, as [`Process::serve`], with at most so many file descriptors.
    pub async fn serve_within(toml: &str, descriptors: u64) -> Self {
        let toml = with_admin(toml);
        let path = toml.path().to_str().expect("a path");
        let limit = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        let binary = env!("CARGO_BIN_EXE_fanfare");
        let arguments = ["-c", &limit, binary, "serve", "--config", path];
        Self::run(command("sh", &arguments)).await
    }

    async fn start(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[]).await
    }

    async fn start_in(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = fanfare(arguments);
        command.envs(environment.iter().copied());
        Self::run(command).await
    }

    async fn run(mut command: Command) -> Self {
        let mut child = command
            .args(["--log-format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("to start fanfare");
        let stdout = child.stdout.take().expect("stdout");
        let (count, counted) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Log {
            lines: Arc::clone(&lines),
            count: counted,
        };
        tokio::spawn(async move {
            let mut output = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = output.next_line().await {
                let line = serde_json::from_str(&line).expect("a JSON line");
                lines.lock().expect("the lines").push(line);
                count.send_modify(|count| *count += 1);
            }
        });
        let ready = log
            .wait_for("listening", |line| {
                message(line).starts_with("listening on ")
            })
            .await;
        let address = message(&ready)
            .trim_start_matches("listening on ")
            .parse()
            .expect("an address");
        Self {
            address,
            child,
            log,
        }
    }

    /// A client on a connection of its own.
    pub async fn client(&self) -> OrchestratorServiceClient<Channel> {
        OrchestratorServiceClient::new(self.channel().await)
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        Endpoint::try_from(format!("http://{}", self.address))
            .expect("a URL")
            .connect()
            .await
            .expect("to connect")
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn pid(&self) -> i32 {
        let id = self.child.id().expect("a running process");
        i32::try_from(id).expect("a pid")
    }

    /// Sends a signal, such as `SIGSTOP`.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Waits for the end; the exit code, or `None` if a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the process to end")
            .expect("its status")
            .code()
    }
}

/// A file with this configuration, whose page for operators has a port of its own unless
/// it says another.
fn with_admin(toml: &str) -> tempfile::NamedTempFile {
    let mut toml = toml.to_owned();
    if !toml.contains("admin_listen") {
        let admin = "[server]\nadmin_listen = \"127.0.0.1:0\"\n";
        toml = toml.replacen("[server]\n", admin, 1);
        assert!(toml.contains(admin), "no line is [server]");
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(toml.as_bytes()).expect("to write it");
    file
}

/// The real binary, whatever the environment of the tests says.
pub fn fanfare(arguments: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_fanfare"), arguments)
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let ours = |name: &str| name == "RUST_LOG" || name.starts_with("OTEL_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Sends a signal to a process.
pub fn send_signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("to send a signal");
}

impl Log {
    /// Waits for `count` lines that `matches` takes; returns them.
    pub async fn wait_for_all(
        &self,
        what: &str,
        count: usize,
        matches: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let mut counted = self.count.clone();
        let found = async {
            loop {
                counted.borrow_and_update();
                let found = self.all(&matches);
                if found.len() >= count {
                    return found;
                }
                if counted.changed().await.is_err() {
                    panic!("the process ended before: {what}");
                }
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!(
                "did not see {count} of: {what}; saw {:#?}",
                self.all(|_| true)
            ),
        }
    }

    /// Waits for a line that `matches` takes.
    pub async fn wait_for(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_all(what, 1, matches).await.remove(0)
    }

    /// The lines so far that `matches` takes.
    pub fn all(&self, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let lines = self.lines.lock().expect("the lines");
        lines.iter().filter(|line| matches(line)).cloned().collect()
    }
}

/// The message of a log line.
pub fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}
