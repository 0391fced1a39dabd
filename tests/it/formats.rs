//! Definitions for models: what each format makes of difficult tools (`formats/tools.json`)
//! is in a file, which `UPDATE_EXPECT=1 cargo test --test it formats` writes anew. The gate
//! has the providers' own libraries read these files.

use std::{env, fs, path::Path, sync::Arc};

use fanfare::{
    catalog::{Catalog, definition::Definition},
    core::call::ToolName,
    json::decode_struct,
    pb::{self, ToolFormat},
};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    config, ms,
    pipes::{self, Client},
    tools::Scripted,
};

const FORMATS: [(ToolFormat, &str); 5] = [
    (ToolFormat::OpenaiChat, "openai"),
    (ToolFormat::OpenaiResponses, "openai-responses"),
    (ToolFormat::Anthropic, "anthropic"),
    (ToolFormat::Gemini, "gemini"),
    (ToolFormat::Mcp, "mcp"),
];

/// The tools of the file.
fn difficult() -> Catalog {
    let tools: Vec<Value> = serde_json::from_str(include_str!("formats/tools.json")).unwrap();
    let mut catalog = Catalog::default();
    for tool in &tools {
        let text = |key: &str| tool[key].as_str().unwrap_or_default().to_owned();
        let schema = |key: &str| tool[key].as_object().cloned().map(Arc::new);
        let definition = Definition {
            title: text("title"),
            description: text("description"),
            input_schema: schema("input_schema"),
            output_schema: schema("output_schema"),
            read_only: tool["read_only"] == true,
            destructive: tool["destructive"] == true,
        };
        let mut scripted = Scripted::answers_after(ms(0));
        scripted.idempotent = tool["idempotent"] == true;
        let name = ToolName::try_new(text("name")).unwrap();
        catalog.insert(name, definition, Arc::new(scripted));
    }
    catalog
}

async fn list(client: &Client, format: ToolFormat, names: &[&str]) -> pb::ListToolsResponse {
    let request = pb::ListToolsRequest {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        format: format.into(),
    };
    let answer = client.clone().list_tools(request).await;
    answer.expect("a list").into_inner()
}

fn definitions(answer: &pb::ListToolsResponse) -> Vec<Value> {
    let decoded = answer.definitions.iter().map(|it| decode_struct(it));
    decoded.map(|it| Value::Object(it.unwrap())).collect()
}

/// What names a tool in a definition.
fn name(definition: &Value) -> &str {
    let function = definition.get("function").unwrap_or(definition);
    function["name"].as_str().expect("a name")
}

#[tokio::test(start_paused = true)]
async fn difficult_tools_in_each_format() {
    let client = pipes::client(&config(), difficult()).await;
    for (format, file) in FORMATS {
        let definitions = definitions(&list(&client, format, &[]).await);
        let text = serde_json::to_string_pretty(&definitions).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join(format!("tests/it/formats/{file}.json"));
        if env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        for (line, (is, should)) in (1..).zip(text.lines().zip(expected.lines())) {
            assert_eq!(is, should, "line {line} of {path:?}");
        }
        assert_eq!(text.lines().count(), expected.lines().count(), "{path:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_definition_is_at_the_place_of_its_tool() {
    let client = pipes::client(&config(), difficult()).await;
    for (format, _) in FORMATS {
        let all = list(&client, format, &[]).await;
        assert_eq!(all.definitions.len(), all.tools.len());
        for (tool, definition) in all.tools.iter().zip(definitions(&all)) {
            let name = name(&definition);
            let is_mcp = format == ToolFormat::Mcp && !tool.name.contains('/');
            let expected = if is_mcp { &tool.name } else { &tool.alias };
            assert_eq!(name, expected);
        }
        let some = list(&client, format, &["tree", "any_*"]).await;
        let names: Vec<_> = some.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["any_of", "tree"]);
        let definitions = definitions(&some);
        assert_eq!(definitions.iter().map(name).collect::<Vec<_>>(), names);
        assert_eq!(some.generation, all.generation);
    }
    let none = list(&client, ToolFormat::Unspecified, &[]).await;
    assert!(none.definitions.is_empty() && !none.tools.is_empty());

    let request = pb::ListToolsRequest {
        format: 99,
        ..pb::ListToolsRequest::default()
    };
    let status = client.clone().list_tools(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().expect("a BadRequest");
    assert_eq!(details.field_violations[0].field, "format");
}

/// However a schema nests, clients decode the list: they take 100 messages in each other.
#[tokio::test(start_paused = true)]
async fn a_schema_that_is_too_deep_spoils_no_list() {
    let mut deep = json!({"type": "string"});
    for _ in 0..60 {
        deep = json!({"type": "object", "properties": {"deeper": deep}});
    }
    let mut lists = json!({"type": "string"});
    for _ in 0..100 {
        lists = json!({"items": lists, "type": "array"});
    }
    let values = json!({"default": lists, "type": "object"});
    let refers = json!({
        "type": "object", "properties": {"a": {"$ref": "#/$defs/deep"}}, "$defs": {"deep": deep},
    });
    let schemas = [
        deep,
        json!({"type": "object", "properties": {"a": lists}}),
        values,
        refers,
    ];
    let mut catalog = Catalog::default();
    for (index, schema) in schemas.into_iter().enumerate() {
        let schema = schema.as_object().cloned().map(Arc::new);
        let definition = Definition {
            input_schema: schema.clone(),
            output_schema: schema,
            ..Definition::default()
        };
        let name = ToolName::try_new(format!("tool{index}")).unwrap();
        catalog.insert(name, definition, Arc::new(Scripted::answers_after(ms(0))));
    }
    let client = pipes::client(&config(), catalog).await;
    for (format, _) in FORMATS {
        let answer = list(&client, format, &[]).await;
        assert_eq!(definitions(&answer).len(), 4);
        for tool in &answer.tools {
            for schema in [&tool.input_schema, &tool.output_schema] {
                let schema = decode_struct(schema.as_ref().unwrap()).unwrap();
                assert_eq!(schema["type"], "object");
            }
        }
        let mut encoded = Vec::new();
        prost::Message::encode(&answer, &mut encoded).unwrap();
        let decoded = <transparent::List as prost::Message>::decode(&*encoded);
        assert_eq!(decoded.unwrap().definitions.len(), 4);
    }
}

/// So many that the list is not made where calls run.
#[tokio::test]
async fn a_long_list_is_whole_and_in_order() {
    let mut catalog = Catalog::default();
    for index in 0..1000 {
        let name = ToolName::try_new(format!("ns{}/tool.{index:03}", index / 100)).unwrap();
        let schema = json!({"type": "object", "properties": {format!("of_{index}"): {}}});
        let definition = Definition {
            input_schema: schema.as_object().cloned().map(Arc::new),
            ..Definition::default()
        };
        catalog.insert(name, definition, Arc::new(Scripted::answers_after(ms(0))));
    }
    let client = pipes::client(&config(), catalog).await;
    for (format, _) in FORMATS {
        // Those that are made already, too.
        for _ in 0..2 {
            let all = list(&client, format, &[]).await;
            assert_eq!((all.tools.len(), all.definitions.len()), (1000, 1000));
            for (index, (tool, definition)) in all.tools.iter().zip(definitions(&all)).enumerate() {
                assert_eq!(tool.name, format!("ns{}/tool.{index:03}", index / 100));
                assert_eq!(name(&definition), tool.alias);
                assert!(definition.to_string().contains(&format!("\"of_{index}\"")));
            }
        }
    }
    let request = pb::ListToolsRequest {
        names: vec!["*a".to_owned()],
        ..pb::ListToolsRequest::default()
    };
    let status = client.clone().list_tools(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The answer as others have it: with messages where we have their bytes.
mod transparent {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct List {
        #[prost(message, repeated, tag = "1")]
        pub tools: Vec<Tool>,
        #[prost(message, repeated, tag = "3")]
        pub definitions: Vec<prost_types::Struct>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tool {
        #[prost(message, optional, tag = "5")]
        pub input_schema: Option<prost_types::Struct>,
        #[prost(message, optional, tag = "9")]
        pub output_schema: Option<prost_types::Struct>,
    }
}
