//! `inspect`, `container inspect`, `image inspect` and `volume inspect`.

use bytes::Bytes;
use creel_client::Error;

use crate::command::{Arity, Command, Context, Outcome, run};
use crate::failure::Failure;
use crate::flags::Flag;
use crate::json;
use crate::output::{complain, print, print_line};
use crate::template::{Scope, Template, Value};

const FORMAT: Flag = Flag::text("format", "string", "'json' or a Go template").short('f');
const SIZE: Flag = Flag::switch("size", "Display sizes of containers").short('s');

/// `inspect` and its two special forms.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        paths: &["inspect"],
        usage: &["[OPTIONS] NAME|ID [NAME|ID...]"],
        about: "Return low-level information on containers, images and volumes",
        long: "",
        flags: &[&[
            FORMAT,
            SIZE,
            Flag::text("type", "string", "Only objects of this type: container, image or volume"),
        ]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(inspect),
    },
    Command {
        paths: &["container inspect"],
        usage: &["[OPTIONS] CONTAINER [CONTAINER...]"],
        about: "Display detailed information on one or more containers",
        long: "",
        flags: &[&[FORMAT, SIZE]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(inspect_container),
    },
    Command {
        paths: &["image inspect"],
        usage: &["[OPTIONS] IMAGE [IMAGE...]"],
        about: "Display detailed information on one or more images",
        long: "",
        flags: &[&[FORMAT]],
        interspersed: true,
        arity: Arity::AtLeast(1),
        run: run!(inspect_image),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Any,
    Container,
    Image,
    Volume,
}

async fn inspect(c: Context) -> Outcome {
    let what = match c.parsed.get("type") {
        None => What::Any,
        Some("container") => What::Container,
        Some("image") => What::Image,
        Some("volume") => What::Volume,
        Some("") => {
            return Err(Failure::new("type is empty: must be one of \"container\", \"image\", \"volume\""));
        }
        Some(other) => {
            return Err(Failure::new(format!(
                "unknown type: {other:?}: must be one of \"container\", \"image\", \"volume\""
            )));
        }
    };
    show(c, what).await
}

async fn inspect_container(c: Context) -> Outcome {
    show(c, What::Container).await
}

async fn inspect_image(c: Context) -> Outcome {
    show(c, What::Image).await
}

/// `volume inspect`.
pub(super) async fn inspect_volume(c: Context) -> Outcome {
    show(c, What::Volume).await
}

async fn find(c: &Context, name: &str, what: What) -> Result<Bytes, String> {
    let size = c.parsed.on("size");
    let text = |e: Error| e.to_string();
    match what {
        What::Container => c.client.inspect(name, size).await.map_err(text),
        What::Image => c.client.image_inspect(name).await.map_err(text),
        What::Volume => c.client.volume_inspect(name).await.map_err(text),
        What::Any => {
            let mut found = c.client.inspect(name, size).await;
            if matches!(&found, Err(e) if e.is_not_found()) {
                found = c.client.image_inspect(name).await;
            }
            if matches!(&found, Err(e) if e.is_not_found()) {
                found = c.client.volume_inspect(name).await;
            }
            found.map_err(|e| match e.is_not_found() {
                true => format!("Error: No such object: {name}"),
                false => e.to_string(),
            })
        }
    }
}

async fn show(c: Context, what: What) -> Outcome {
    let template = match c.parsed.some("format") {
        None => None,
        Some("json") => Some(None),
        Some(source) => Some(Some(
            Template::parse(source)
                .map_err(|e| Failure::new(format!("template parsing error: {e}")).code(64))?,
        )),
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in c.args() {
        match find(&c, name, what).await {
            Ok(document) => found.push(document),
            Err(e) => missing.push(e),
        }
    }
    let mut failure = None;
    match template {
        None => print(&render(&found))?,
        Some(None) => {
            let list: Vec<_> =
                found.iter().map(|d| String::from_utf8_lossy(d.trim_ascii()).into_owned()).collect();
            print_line(&format!("[{}]", list.join(",")))?;
        }
        Some(Some(template)) => {
            for document in &found {
                let mut value: Value = serde_json::from_slice(document)
                    .map_err(|e| Failure::new(format!("reading the daemon's answer: {e}")))?;
                with_empty_fields(&mut value);
                match template.execute(&value, &Scope::default()) {
                    Ok(text) => print_line(&text)?,
                    Err(e) => {
                        print_line("")?;
                        failure = Some(format!("template parsing error: {e}"));
                        break;
                    }
                }
            }
            if found.is_empty() {
                print_line("")?;
            }
        }
    }
    missing.extend(failure);
    for e in &missing {
        complain(e);
    }
    Ok(i32::from(!missing.is_empty()))
}

/// What an image's configuration leaves out, as Docker's client shows it to templates: empty.
fn with_empty_fields(value: &mut Value) {
    const NULL: [&str; 10] = [
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Healthcheck",
        "Volumes",
        "Labels",
        "OnBuild",
        "Shell",
        "StopTimeout",
    ];
    if value.get("RootFS").is_none() {
        return;
    }
    let Value::Map(fields) = value else { return };
    let Some((_, Value::Map(config))) = fields.iter_mut().find(|(name, _)| name == "Config") else { return };
    let empty = NULL.iter().map(|name| (*name, Value::Null));
    let empty = empty.chain(["User", "WorkingDir", "StopSignal"].map(|name| (name, "".into())));
    for (name, value) in empty {
        if !config.iter().any(|(known, _)| known == name) {
            config.push((name.to_owned(), value));
        }
    }
}

/// The documents as an array, indented as Docker does.
fn render(documents: &[Bytes]) -> String {
    if documents.is_empty() {
        return "[]\n".to_owned();
    }
    let list: Vec<String> =
        documents.iter().map(|d| format!("    {}", json::indent(d, "    ", "    "))).collect();
    format!("[\n{}\n]\n", list.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn documents_become_an_array() {
        let documents = [Bytes::from_static(b"{\"a\":{\"b\":[1]}}\n"), Bytes::from_static(b"{}")];
        expect![[r#"
            [
                {
                    "a": {
                        "b": [
                            1
                        ]
                    }
                },
                {}
            ]
        "#]]
        .assert_eq(&render(&documents));
        assert_eq!(render(&[]), "[]\n");
    }
}
