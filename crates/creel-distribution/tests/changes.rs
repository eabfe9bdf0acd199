//! `import --change` held against what Docker 28.5.2 made of the same instructions (`data/changes.json`: the image's
//! configuration without what is empty, or null where Docker refused; measured with `docker import --change`).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;

use creel_distribution::change;
use creel_types::image::ExecConfig;
use serde_json::{Map, Value};

/// What creel refuses where Docker takes it: it means nothing, or something else than it says.
const STRICTER: [&str; 6] =
    ["EXPOSE 80:81", "EXPOSE $P", "USER \"\"", "USER $HOME", "STOPSIGNAL 65", "STOPSIGNAL -1"];

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn of_creel(instruction: &str) -> Option<Value> {
    let mut config = ExecConfig::default();
    change::apply(&mut config, &[instruction.to_owned()]).ok()?;
    let Value::Object(all) = serde_json::to_value(&config).unwrap() else { panic!("no object") };
    Some(Value::Object(all.into_iter().filter(|(_, value)| !is_empty(value)).collect()))
}

#[test]
fn every_instruction_makes_what_docker_makes_of_it() {
    let docker: BTreeMap<String, Option<Map<String, Value>>> =
        serde_json::from_str(include_str!("data/changes.json")).unwrap();
    assert!(docker.len() > 120);
    let mut wrong = Vec::new();
    for (instruction, wanted) in &docker {
        let wanted = match instruction.as_str() {
            strict if STRICTER.contains(&strict) => None,
            // Docker makes a shell without a command of it
            "CMD" => Some(Value::Object(Map::new())),
            _ => wanted.clone().map(Value::Object),
        };
        let found = of_creel(instruction);
        if found != wanted {
            wrong.push(format!("{instruction:?}: {found:?}, not {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
