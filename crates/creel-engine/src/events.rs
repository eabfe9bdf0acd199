//! What happened: the latest events, and whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use creel_wire::system::{Actor, Event};
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::filters::Filters;

/// How many events are remembered.
const KEPT: usize = 256;
/// How many events a slow listener may be behind before it is dropped.
const BEHIND: usize = 1024;

/// The filters that events know.
pub(crate) const FILTERS: [&str; 12] = [
    "type",
    "event",
    "container",
    "image",
    "label",
    "scope",
    "network",
    "volume",
    "daemon",
    "plugin",
    "node",
    "label!",
];

/// The bus.
#[derive(Debug, Default)]
pub(crate) struct Bus(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ring: VecDeque<Event>,
    listeners: Vec<(Filters, mpsc::Sender<Event>)>,
}

impl Bus {
    /// Tells everybody.
    pub(crate) fn tell(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let now = Timestamp::now();
        let from = match kind {
            "container" => attributes.get("image").cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let old_style = matches!(kind, "container" | "image");
        let event = Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            status: if old_style { action.to_owned() } else { String::new() },
            id: if old_style { id.to_owned() } else { String::new() },
            from,
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".to_owned(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.listeners.retain(|(filters, listener)| {
            !matches(filters, &event) && !listener.is_closed() || listener.try_send(event.clone()).is_ok()
        });
        if inner.ring.len() == KEPT {
            inner.ring.pop_front();
        }
        inner.ring.push_back(event);
    }

    /// The remembered events since then, and all that come.
    pub(crate) fn listen(&self, since: Option<Timestamp>, filters: Filters) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(BEHIND);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since {
            let since = i64::try_from(since.as_nanosecond()).unwrap_or(i64::MAX);
            for event in inner.ring.iter().filter(|e| e.time_nano >= since && matches(&filters, e)) {
                let _ = sender.try_send(event.clone());
            }
        }
        inner.listeners.push((filters, sender));
        receiver
    }
}

/// Fails on filters that events do not know.
pub(crate) fn check(filters: &Filters) -> Result<()> {
    filters.allow(&FILTERS)
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.actor.attributes.get(name).map_or("", String::as_str);
    let named = |kind: &str, wanted: &str| {
        event.kind == kind
            && !wanted.is_empty()
            && (event.actor.id == wanted
                || attribute("name") == wanted
                || (wanted.len() >= 4 && event.actor.id.trim_start_matches("sha256:").starts_with(wanted)))
    };
    filters.any("type", |kind| event.kind == kind)
        && filters.any("event", |action| {
            event.action == action || event.action.split(':').next().is_some_and(|first| first == action)
        })
        && filters.any("scope", |scope| event.scope == scope)
        && filters.any("container", |wanted| named("container", wanted))
        && filters.any("image", |wanted| {
            let bare = |text: &str| text.split_once(':').map_or(text.to_owned(), |(name, _)| name.to_owned());
            named("image", wanted)
                || [attribute("image"), attribute("name")]
                    .iter()
                    .any(|image| *image == wanted || bare(image) == wanted)
        })
        && ["network", "volume", "daemon", "plugin", "node"]
            .iter()
            .all(|kind| filters.any(kind, |wanted| named(kind, wanted)))
        && filters.labels(&event.actor.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn listeners_get_what_was_and_what_comes() {
        let bus = Bus::default();
        bus.tell(
            "container",
            "create",
            &"a".repeat(64),
            attributes(&[("name", "x"), ("image", "hello:latest")]),
        );
        let mut all = bus.listen(Some(Timestamp::UNIX_EPOCH), Filters::default());
        let mut starts =
            bus.listen(None, Filters::parse(r#"{"event":["start"],"image":["hello"]}"#).unwrap());
        bus.tell(
            "container",
            "start",
            &"a".repeat(64),
            attributes(&[("name", "x"), ("image", "hello:latest")]),
        );
        bus.tell("image", "pull", "hello:latest", attributes(&[("name", "hello")]));
        let mut actions = Vec::new();
        for _ in 0..3 {
            actions.push(all.recv().await.unwrap().action);
        }
        assert_eq!(actions, ["create", "start", "pull"]);
        assert_eq!(starts.recv().await.unwrap().action, "start");
        assert!(starts.try_recv().is_err());
    }

    #[test]
    fn only_so_many_are_kept() {
        let bus = Bus::default();
        for _ in 0..KEPT + 10 {
            bus.tell("container", "die", "x", BTreeMap::new());
        }
        assert_eq!(bus.0.lock().unwrap().ring.len(), KEPT);
    }
}
