//! What descriptors say as tools: the methods of gRPC services.

use std::{fs, path::Path, sync::Arc};

use super::{MAX_BYTES, Offer, Told, Unusable, Wanted, hash_of, reflection::Descriptors};
use crate::{
    catalog::definition::Definition,
    protobuf::{Method, Pool, Problem},
    tool::method::Messages,
};

/// How to call a method: of one state of its descriptors.
#[derive(Clone, Debug)]
pub(in crate::catalog) struct Shape(Arc<Messages>);

impl Shape {
    /// What it takes and gives.
    pub(in crate::catalog) fn messages(&self) -> Messages {
        (*self.0).clone()
    }

    /// Whether it answers with a stream.
    pub(in crate::catalog) fn streams(&self) -> bool {
        self.0.streams
    }
}

/// They are the same only if they are of the same state.
impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is in the file at `path`.
///
/// # Errors
/// If it can't be read or is no set of descriptors.
pub(super) fn of_file(path: &Path, wanted: &Wanted) -> Result<Told, String> {
    let problem = |problem: String| format!("{}: {problem}", path.display());
    let read = || -> std::io::Result<Vec<u8>> {
        let length = fs::metadata(path)?.len();
        if length > MAX_BYTES as u64 {
            let most = MAX_BYTES >> 20;
            return Err(std::io::Error::other(format!("it has over {most} MiB")));
        }
        fs::read(path)
    };
    let set = read().map_err(|error| problem(error.to_string()))?;
    let (pool, problems) = Pool::from_set(&set).map_err(|it| problem(it.to_string()))?;
    Ok(told(
        hash_of(&set),
        &pool,
        pool.methods().iter().collect(),
        &problems,
        Vec::new(),
        &[],
        wanted,
    ))
}

/// What a service sent by reflection.
pub(super) fn of_reflection(mut found: Descriptors, wanted: &Wanted) -> Told {
    found.files.sort();
    let content = hash_of((&found.files, &found.services, &found.unusable));
    let Descriptors {
        pool,
        problems,
        services,
        unusable,
        not_wanted,
        ..
    } = found;
    let is_served = |method: &Method| {
        let service = method.full_name.split_once('/');
        service.is_some_and(|(service, _)| services.iter().any(|it| it == service))
    };
    let methods = pool.methods().iter().filter(|it| is_served(it));
    let methods = methods.collect();
    told(
        content,
        &pool,
        methods,
        &problems,
        unusable,
        &not_wanted,
        wanted,
    )
}

fn told(
    content: u64,
    pool: &Pool,
    mut methods: Vec<&Method>,
    problems: &[Problem],
    unusable: Vec<Unusable>,
    not_wanted: &[String],
    wanted: &Wanted,
) -> Told {
    let names = methods.iter().map(|it| it.full_name.as_str());
    let others = unusable.iter().map(|it| it.what.as_str());
    let names: Vec<_> = names.chain(others).collect();
    let mut told = Told {
        content,
        notes: problems.iter().map(ToString::to_string).collect(),
        unmatched: wanted.unmatched(&names, not_wanted),
        unusable,
        ..Told::default()
    };
    methods.sort_by(|a, b| a.full_name.cmp(&b.full_name));
    methods.dedup_by(|a, b| a.full_name == b.full_name);
    for method in methods.into_iter().filter(|it| wanted.wants(&it.full_name)) {
        match offer(pool, method) {
            Ok(offer) => told.offers.push(Arc::new(offer)),
            Err(why) => told.unusable.push(Unusable::new(&method.full_name, why)),
        }
    }
    told
}

fn offer(pool: &Pool, method: &Method) -> Result<Offer, String> {
    if method.client_streaming {
        return Err("it takes a stream, which no call is".to_owned());
    }
    let message = |name: &str| pool.message(name).map_err(|why| why.to_string());
    let (input, output) = (message(&method.input)?, message(&method.output)?);
    Ok(Offer {
        remote: method.full_name.clone(),
        definition: Definition {
            description: method.description.clone(),
            input_schema: Some(Arc::new(input.input_schema())),
            // Of one message: what is collected of a stream is a list of them.
            output_schema: (!method.server_streaming).then(|| Arc::new(output.output_schema())),
            read_only: method.read_only,
            ..Definition::default()
        },
        timeout: None,
        idempotent: method.idempotent,
        shape: Some(Shape(Arc::new(Messages {
            input,
            output,
            streams: method.server_streaming,
        }))),
    })
}
