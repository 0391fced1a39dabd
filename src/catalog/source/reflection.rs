//! Asks a service for its descriptors by gRPC's server reflection
//! (<https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>).
//!
//! All is asked on one stream, so that one server answers: behind a proxy there may be
//! several builds. Servers differ in what they send of the imports of a file, and under
//! which names: what is missing is asked for by its name, then by the types in it.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::{MAX_BYTES, MAX_NAME_BYTES, Unusable, channel, shown};
use crate::{
    net::Upstream,
    protobuf::{MAX_FILES, Pool, Problem},
};

/// The first that answers is used. They have the same messages.
const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// How often it is asked for what is still missing.
const ROUNDS: usize = 20;
/// How much it may be asked for, one thing after the other.
const MAX_REQUESTS: usize = 4000;

const WRONG_KIND: &str = "reflection: an answer to another question than was asked";

/// Descriptors, as they were sent.
pub(super) struct Descriptors {
    pub(super) files: Vec<Bytes>,
    pub(super) pool: Pool,
    pub(super) problems: Vec<Problem>,
    /// The services that were asked for. The files may have others, which it does not serve.
    pub(super) services: Vec<String>,
    /// Services that are wanted, and of which there are none.
    pub(super) unusable: Vec<Unusable>,
    /// The services of which none were asked for.
    pub(super) not_wanted: Vec<String>,
}

/// Why there are none.
enum Failure {
    /// Before anything was answered: perhaps only of this version.
    Unanswered(Code, String),
    Broken(String),
}

/// A stream on which one question after the other is answered.
struct Conversation {
    questions: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    left: usize,
}

/// The descriptors of those services that are `wanted`, of which `named` are known to be.
///
/// # Errors
/// If the service can't be asked, or answers with nonsense.
pub(super) async fn ask(
    upstream: &Arc<Upstream>,
    wanted: impl Fn(&str) -> bool,
    named: &[String],
) -> Result<Descriptors, String> {
    let mut first = None;
    for version in VERSIONS {
        match ask_version(upstream, version, &wanted, named).await {
            Ok(descriptors) => return Ok(descriptors),
            Err(Failure::Broken(reason)) => return Err(reason),
            Err(Failure::Unanswered(code, reason)) => match &first {
                None => first = Some((code, reason)),
                Some((Code::Unimplemented, _)) if code != Code::Unimplemented => {
                    return Err(reason);
                }
                Some(_) => {}
            },
        }
    }
    Err(match first {
        Some((Code::Unimplemented, _)) | None => {
            "it has no server reflection: name a file of `descriptors`".to_owned()
        }
        Some((_, reason)) => reason,
    })
}

async fn ask_version(
    upstream: &Arc<Upstream>,
    version: &'static str,
    wanted: impl Fn(&str) -> bool,
    named: &[String],
) -> Result<Descriptors, Failure> {
    let unreachable = |reason| Failure::Broken(reason);
    let (channel, origin) = channel::open(upstream).await.map_err(unreachable)?;
    let mut grpc = Grpc::with_origin(channel, origin).max_decoding_message_size(MAX_BYTES);
    let (questions, asked) = mpsc::channel(1);
    // Some servers send nothing at all before they have a question.
    let listing = question(MessageRequest::ListServices(String::new()));
    let _ = questions.try_send(listing);
    let unanswered = |status: Status| {
        let reason = format!(
            "reflection: {:?}: {}",
            status.code(),
            shown(status.message())
        );
        Failure::Unanswered(status.code(), reason)
    };
    grpc.ready()
        .await
        .map_err(|error| Failure::Broken(format!("reflection: {error}")))?;
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let path = PathAndQuery::from_static(version);
    let stream = Request::new(stream_of(asked));
    let answers = grpc.streaming(stream, path, codec).await;
    let mut conversation = Conversation {
        questions,
        answers: answers.map_err(unanswered)?.into_inner(),
        left: MAX_REQUESTS,
    };
    let listed = match conversation.answer().await {
        Ok(Some(listed)) => listed,
        Ok(None) => {
            let reason = "reflection: the stream ended without an answer".to_owned();
            return Err(Failure::Unanswered(Code::Unimplemented, reason));
        }
        Err(status) => return Err(unanswered(status)),
    };
    let listed = services(listed).map_err(Failure::Broken)?.into_iter();
    let (listed, not_wanted): (Vec<_>, _) = listed.partition(|name| wanted(name));
    let (listed, too_long): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .partition(|name| name.len() <= MAX_NAME_BYTES);
    let mut services = [named, &listed].concat();
    services.sort();
    services.dedup();
    let collected = conversation.collect(services.clone()).await;
    let found = collected.map_err(Failure::Broken)?;
    let known: HashSet<&str> = found.pool.services().collect();
    let silent = listed.iter().filter(|it| !known.contains(it.as_str()));
    let silent = silent.map(|it| all_of(it, "no descriptors of it were sent".to_owned()));
    let too_long = too_long.iter().map(|it| {
        let why = format!("the service's name is longer than {MAX_NAME_BYTES} bytes");
        all_of(it, why)
    });
    let mut unusable: Vec<_> = silent.chain(too_long).collect();
    unusable.sort();
    Ok(Descriptors {
        services,
        unusable,
        not_wanted,
        ..found
    })
}

/// The methods of a service, of which none is known.
fn all_of(service: &str, why: String) -> Unusable {
    Unusable::new(&format!("{service}/*"), why)
}

/// What the list of services says.
fn services(listed: ServerReflectionResponse) -> Result<Vec<String>, String> {
    match listed.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            let names = list.service.into_iter().map(|service| service.name);
            Ok(names.collect())
        }
        Some(MessageResponse::ErrorResponse(error)) => {
            let (code, message) = (Code::from_i32(error.error_code), error.error_message);
            Err(format!(
                "reflection: no list of services: {code:?}: {}",
                shown(&message)
            ))
        }
        _ => Err(WRONG_KIND.to_owned()),
    }
}

impl Conversation {
    /// The files with these services, and all that they need.
    async fn collect(&mut self, services: Vec<String>) -> Result<Descriptors, String> {
        let mut files = Files::default();
        for service in services {
            let symbol = MessageRequest::FileContainingSymbol(service);
            self.ask_for(symbol, &mut files).await?;
        }
        let mut asked = HashSet::new();
        for round in 0.. {
            let known = files.known.clone();
            let indexed = spawn_blocking(move || Pool::new(known)).await;
            let (pool, problems) = indexed.map_err(|error| error.to_string())?;
            let missing = missing(&pool, &mut asked);
            if missing.is_empty() || round == ROUNDS {
                return Ok(Descriptors {
                    files: files.known,
                    pool,
                    problems,
                    services: Vec::new(),
                    unusable: Vec::new(),
                    not_wanted: Vec::new(),
                });
            }
            for question in missing {
                self.ask_for(question, &mut files).await?;
            }
        }
        unreachable!("there are only so many rounds")
    }

    /// Adds what is answered, if anything is. That something is not there is no failure:
    /// it costs only what needs it.
    async fn ask_for(&mut self, what: MessageRequest, files: &mut Files) -> Result<(), String> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(format!("reflection: over {MAX_REQUESTS} questions"));
        };
        self.left = left;
        let lost = || "reflection: the stream ended in the middle".to_owned();
        let sent = self.questions.send(question(what)).await;
        sent.map_err(|_| lost())?;
        let answer = self.answer().await.map_err(|status| {
            let message = shown(status.message());
            format!("reflection: {:?}: {message}", status.code())
        })?;
        match answer.ok_or_else(lost)?.message_response {
            Some(MessageResponse::FileDescriptorResponse(answer)) => {
                files.add(answer.file_descriptor_proto)
            }
            Some(MessageResponse::ErrorResponse(_)) => Ok(()),
            _ => Err(WRONG_KIND.to_owned()),
        }
    }

    async fn answer(&mut self) -> Result<Option<ServerReflectionResponse>, Status> {
        self.answers.next().await.transpose()
    }
}

/// The files that were sent, each once.
#[derive(Default)]
struct Files {
    known: Vec<Bytes>,
    seen: HashSet<Bytes>,
    bytes: usize,
}

impl Files {
    fn add(&mut self, files: Vec<Vec<u8>>) -> Result<(), String> {
        for file in files {
            let file = Bytes::from(file);
            if !self.seen.insert(file.clone()) {
                continue;
            }
            self.bytes += file.len();
            if self.known.len() == MAX_FILES || self.bytes > MAX_BYTES {
                let most = MAX_BYTES >> 20;
                return Err(format!("reflection: over {MAX_FILES} files or {most} MiB"));
            }
            self.known.push(file);
        }
        Ok(())
    }
}

/// What there is to ask for that was not asked for yet.
fn missing(pool: &Pool, asked: &mut HashSet<String>) -> Vec<MessageRequest> {
    let fits = |name: &&str| name.len() <= MAX_NAME_BYTES;
    let mut is_new = |name: &&str| asked.insert((*name).to_owned());
    let files: Vec<_> = pool
        .missing()
        .filter(fits)
        .filter(&mut is_new)
        .map(|file| MessageRequest::FileByFilename(file.to_owned()))
        .collect();
    if !files.is_empty() {
        return files;
    }
    // An import may have another name than its file: golang/protobuf#567.
    let symbols = pool.unresolved().filter(fits).filter(is_new);
    symbols
        .map(|symbol| MessageRequest::FileContainingSymbol(symbol.to_owned()))
        .collect()
}

fn question(what: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: String::new(),
        message_request: Some(what),
    }
}

fn stream_of<T: Send + 'static>(mut receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}
