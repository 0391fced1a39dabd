//! What can be said of a configuration's tools without asking anybody.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    naming::Names,
    source::{Wanted, methods::Shape},
};
use crate::{
    config::{Config, Protocol},
    tool::schema::ArgumentsSchema,
};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What would keep a tool that the file names from working, or exposes nothing, each
    /// with its key.
    pub mistakes: Vec<String>,
    /// What would be no tool although it is exposed, and why.
    pub left_out: Vec<String>,
    /// Which tools there are of that, and so the rest, is not known: it takes a connection.
    pub unasked: Vec<String>,
}

/// Reads the files of descriptors that `config` names, and compiles its schemas.
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let mut told = BTreeMap::new();
    for (name, service) in &config.services {
        if !service.is_source() {
            continue;
        }
        match Wanted::new(name, service, &config.tools).of_file() {
            None => findings
                .unasked
                .push(format!("services.{name}: which tools it has")),
            Some(Err(reason)) => {
                let mistake = format!("services.{name}.descriptors: {reason}");
                findings.mistakes.push(mistake);
            }
            Some(Ok(of_file)) => {
                let notes = of_file.notes.iter();
                let notes = notes.map(|note| format!("services.{name}.descriptors: {note}"));
                findings.left_out.extend(notes);
                let unmatched = of_file.unmatched.iter();
                let unmatched = unmatched.map(|it| format!("services.{name}.expose: {it}"));
                findings.mistakes.extend(unmatched);
                told.insert(name.clone(), of_file);
            }
        }
    }
    for (name, tool) in &config.tools {
        // Those of methods are for models: their descriptors say what they take.
        let of_fanfare = config
            .services
            .get(&tool.service)
            .is_some_and(|service| service.protocol == Protocol::Fanfare);
        let schema = tool.input_schema.as_ref().filter(|_| of_fanfare);
        let unusable = schema
            .and_then(|schema| ArgumentsSchema::compile(name.as_str(), Arc::clone(schema)).err());
        if let Some(why) = unusable {
            let mistake = format!("tools.{name}.input_schema_file: {why}");
            findings.mistakes.push(mistake);
        }
        let Some(told) = told.get(&tool.service) else {
            continue;
        };
        let remote = tool.remote(name);
        let offer = told.offers.iter().find(|it| it.remote == remote);
        let streams = offer
            .and_then(|it| it.shape.as_ref())
            .is_some_and(Shape::streams);
        let unusable = told.unusable.iter().find(|it| it.what == remote);
        let problem = match (offer, unusable) {
            (Some(_), _) if streams && tool.stream.is_none() => {
                format!("{remote} answers with a stream, and `stream` is not set")
            }
            (Some(_), _) => continue,
            (None, Some(unusable)) => unusable.to_string(),
            (None, None) => format!("the descriptors of {} have no {remote}", tool.service),
        };
        findings.mistakes.push(format!("tools.{name}: {problem}"));
    }
    let names = Names::new(&config.services, &config.tools, &told);
    for (service, left_out) in names.left_out {
        let lines = left_out
            .iter()
            .map(|it| format!("services.{service}: {it}"));
        findings.left_out.extend(lines);
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message as _;
    use prost_types::{
        DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
        ServiceDescriptorProto,
    };

    use super::*;

    /// `p.S` with the methods `Get`, `Watch`, which answers with a stream, and `Lost`, whose
    /// message is not there.
    fn set() -> Vec<u8> {
        let method = |name: &str, input: &str, streams| MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: Some(input.to_owned()),
            output_type: Some(".p.M".to_owned()),
            server_streaming: Some(streams),
            ..MethodDescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("p.proto".to_owned()),
            package: Some("p".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![DescriptorProto {
                name: Some("M".to_owned()),
                ..DescriptorProto::default()
            }],
            service: vec![ServiceDescriptorProto {
                name: Some("S".to_owned()),
                method: vec![
                    method("Get", ".p.M", false),
                    method("Watch", ".p.M", true),
                    method("Lost", ".p.Nowhere", false),
                ],
                ..ServiceDescriptorProto::default()
            }],
            ..FileDescriptorProto::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    }

    /// What is found in a file of descriptors with this content, and these settings.
    fn findings(content: &[u8], settings: &str) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.binpb");
        fs::write(&path, content).unwrap();
        let toml = format!(
            "[services.a]\nendpoint = 'http://a'\nprotocol = 'grpc'\ndescriptors = '{}'\n{settings}",
            path.display()
        );
        check(&Config::parse(&toml).unwrap())
    }

    #[test]
    fn a_good_file_is_good() {
        let settings = "expose = ['p.S/Get']\n\
                        [tools.watch]\nservice = 'a'\nremote = 'p.S/Watch'\nstream = 'collect'\n\
                        [services.b]\nendpoint = 'http://b'\nexpose = ['*']\n\
                        [services.c]\nendpoint = 'http://c'";
        let expected = Findings {
            unasked: vec!["services.b: which tools it has".to_owned()],
            left_out: findings(&set(), "").left_out,
            ..Findings::default()
        };
        assert_eq!(findings(&set(), settings), expected);
    }

    #[test]
    fn a_schema_that_can_not_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("far.schema.json");
        fs::write(&path, r#"{"$ref": "https://example.com/far.json"}"#).unwrap();
        let settings = |protocol| {
            let path = path.display();
            format!(
                "[services.a]\nendpoint = 'http://a'\nprotocol = '{protocol}'\n\
                 [tools.far]\nservice = 'a'\nremote = 'p.S/Far'\ninput_schema_file = '{path}'"
            )
        };
        let found = |protocol| check(&Config::parse(&settings(protocol)).unwrap()).mistakes;
        let [mistake] = &found("fanfare")[..] else {
            panic!("one mistake");
        };
        assert!(
            mistake.starts_with("tools.far.input_schema_file: its input schema refers to"),
            "{mistake}"
        );
        assert!(found("grpc").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let none = findings(b"\xff", "expose = ['*']").mistakes;
        assert!(none[0].starts_with("services.a.descriptors: /"), "{none:?}");
        let expected = "services.a.expose: it has nothing to expose for \
                        q.S/* (did you mean p.S/*?); it has p.S";
        let misspelt = findings(&set(), "expose = ['p.S/Get', 'q.S/*']").mistakes;
        assert_eq!(misspelt, [expected]);

        let tools = ["Watch", "Lost", "Absent"]
            .map(|method| format!("[tools.{method}]\nservice = 'a'\nremote = 'p.S/{method}'\n"));
        let [absent, lost, watch] = &findings(&set(), &tools.concat()).mistakes[..] else {
            panic!("three mistakes");
        };
        assert_eq!(
            absent,
            "tools.Absent: the descriptors of a have no p.S/Absent"
        );
        assert!(
            lost.starts_with("tools.Lost: p.S/Lost: ") && lost.contains("p.Nowhere"),
            "{lost}"
        );
        assert!(watch.contains("answers with a stream"), "{watch}");

        let left_out = findings(&set(), "expose = ['*']").left_out;
        let of = |method: &str| left_out.iter().any(|it| it.contains(method));
        assert!(
            of("p.S/Lost") && of("p.S/Watch") && !of("p.S/Get"),
            "{left_out:?}"
        );
    }
}
