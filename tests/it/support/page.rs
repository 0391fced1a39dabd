//! The page for Prometheus, read.

use std::collections::BTreeMap;

use fanfare::telemetry::Telemetry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::process::{PATIENCE, Process, message};

/// What the operators' page of a process answers to a GET of `path`, head included.
pub async fn of_admin(process: &Process, path: &str) -> String {
    let lines = process
        .log()
        .all(|line| message(line).starts_with("admin on "));
    let address = lines[0]["address"].as_str().expect("an address");
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, answer).await.expect("an answer in time");
    answer.expect("an answer")
}

/// What a page says.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub samples: Vec<Sample>,
    /// The type of each metric.
    pub types: BTreeMap<String, String>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Page {
    /// The page of `telemetry`, now.
    pub fn of(telemetry: &Telemetry) -> Self {
        let text = telemetry.page().expect("a page").expect("no conflict");
        Self::parse(&text)
    }

    /// The page of a process, now.
    pub async fn of_process(process: &Process) -> Self {
        let answer = of_admin(process, "/metrics").await;
        Self::parse(answer.split_once("\r\n\r\n").expect("a body").1)
    }

    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                page.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                page.samples.push(Sample::parse(line));
            }
        }
        page
    }

    /// The value of the one series that has this name and these labels, and maybe
    /// more of them; zero if there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.all(name, labels);
        assert!(found.len() <= 1, "{name} {labels:?} is {found:#?}");
        found.first().map_or(0.0, |sample| sample.value)
    }

    /// The sum over all series that have this name and these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels)
            .iter()
            .map(|sample| sample.value)
            .sum()
    }

    /// All series that have this name and these labels.
    pub fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(has).collect()
    }

    /// Whether anything is under way.
    pub fn is_idle(&self) -> bool {
        [
            "fanfare_active_requests",
            "fanfare_in_flight_calls",
            "fanfare_tool_active_calls",
            "fanfare_tool_queue_length",
        ]
        .iter()
        .all(|name| self.all(name, &[]).iter().all(|sample| sample.value == 0.0))
    }
}

impl Sample {
    /// `name{key="value",…} 1.5`, as strictly as Prometheus reads it.
    fn parse(line: &str) -> Self {
        let end = line.find(['{', ' ']).expect("a value");
        let (name, mut rest) = line.split_at(end);
        assert!(is_name(name.strip_prefix(':').unwrap_or(name)), "{line}");
        let mut labels = BTreeMap::new();
        if let Some(pairs) = rest.strip_prefix('{') {
            rest = pairs;
            while !rest.starts_with('}') {
                let (key, value, after) = label(rest);
                assert!(is_name(key), "{key:?} is no label: {line}");
                let double = labels.insert(key.to_owned(), value);
                assert!(double.is_none(), "{key} comes twice: {line}");
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.strip_prefix(' ').expect("a value");
        Self {
            name: name.to_owned(),
            labels,
            value: value.parse().expect("a number"),
        }
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`
fn is_name(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The key and the value that `text` begins with, and what comes after.
fn label(text: &str) -> (&str, String, &str) {
    let (key, rest) = text.split_once("=\"").expect("a label");
    let mut value = String::new();
    let mut chars = rest.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return (key, value, &rest[index + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                other => panic!("no escape: {other:?}"),
            }),
            // Where Prometheus takes the page to end.
            '\0' => panic!("a NUL in {key}"),
            c => value.push(c),
        }
    }
    panic!("{key} has no end")
}
