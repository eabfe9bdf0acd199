//! Finding an image by what a person typed.

use super::*;
use crate::images::{Wanted, normalize, parse_wanted};
use proptest::prelude::*;

fn image(id: Digest) -> ImageRecord {
    ImageRecord {
        id,
        manifest: None,
        layers: Vec::new(),
        size: 0,
        created: None,
        parent: None,
        config: Default::default(),
        references: Vec::new(),
        tagged: None,
        repo_digests: Vec::new(),
    }
}

fn id(start: &str) -> Digest {
    Digest::from_hex(&format!("{start:0<64}")).unwrap()
}

#[test]
fn a_name_comes_before_an_id_and_a_digest_before_a_tag() {
    let mut view = View::default();
    for start in ["abc1", "abc2", "d00d", "0"] {
        view.insert_image(image(id(start)));
    }
    view.set_reference(reference("d00d:latest"), id("abc1"));
    view.set_reference(reference("app:1"), id("abc2"));
    view.set_reference(reference("app").at_digest(id("f")), id("d00d"));
    let find = |text: &str| match view.resolve_image(text) {
        Ok(image) => image.id.hex().trim_end_matches('0').to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(find("d00d"), "abc1");
    assert_eq!(find("sha256:d00d"), "d00d");
    assert_eq!(find("d00"), "d00d");
    assert_eq!(find("abc1"), "abc1");
    assert_eq!(find("0"), "");
    assert_eq!(find(&id("abc2").hex()), "abc2");
    assert_eq!(find(&id("abc2").to_string()), "abc2");
    assert_eq!(find("docker.io/library/app:1"), "abc2");
    assert_eq!(find(&format!("app:gone@{}", id("f"))), "d00d");
    assert_eq!(find(&format!("other@{}", id("f"))), format!("No such image: other@{}", id("f")));
    assert_eq!(
        find("ab"),
        "image id prefix `ab` is ambiguous: it fits abc100000000, abc200000000; give more digits"
    );
    assert_eq!(find("app"), "No such image: app:latest");
    assert_eq!(find("fff"), "No such image: fff:latest");
    assert_eq!(find(&id("abc3").to_string()), format!("No such image: {}", id("abc3")));
    assert!(find("App").contains("must be lowercase"));
    assert!(find("").contains("invalid reference format"));
    assert!(find("sha256:").contains("invalid reference format"));
}

proptest! {
    #[test]
    fn precedence_is_dockers(
        ids in proptest::collection::btree_set("[ab]{1,3}", 1..8),
        tags in proptest::collection::vec(("[ab]{1,3}", "[ab]{1,2}", 0usize..8), 0..8),
        asked in "(sha256:)?[ab]{1,4}(:[ab]{1,2})?",
    ) {
        let ids: Vec<Digest> = ids.iter().map(|start| id(start)).collect();
        let mut view = View::default();
        ids.iter().for_each(|id| view.insert_image(image(*id)));
        let mut model: HashMap<String, Digest> = HashMap::new();
        for (name, tag, to) in &tags {
            let to = ids[to % ids.len()];
            view.set_reference(reference(&format!("{name}:{tag}")), to);
            model.insert(format!("{name}:{tag}"), to);
            view.set_reference(reference(name).with_default_tag(), to);
            model.insert(format!("{name}:latest"), to);
        }
        // the images' own lists agree with the table
        for image in view.images() {
            let mut mine: Vec<_> = image.references.iter().map(Reference::familiar).collect();
            let mut named: Vec<_> = model.iter().filter(|(_, to)| **to == image.id).map(|(n, _)| n.clone()).collect();
            mine.sort();
            named.sort();
            prop_assert_eq!(mine, named);
        }
        let by_name = asked
            .parse::<Reference>()
            .ok()
            .and_then(|r| model.get(&r.with_default_tag().familiar()).copied());
        let digits = asked.strip_prefix("sha256:").unwrap_or(&asked);
        let fits: Vec<Digest> = ids.iter().copied().filter(|id| id.hex().starts_with(digits)).collect();
        match (by_name, &fits[..], view.resolve_image(&asked)) {
            (Some(to), _, Ok(found)) => prop_assert_eq!(found.id, to),
            (None, [one], Ok(found)) => prop_assert_eq!(found.id, *one),
            (None, [], Err(Error::NoSuchImage(_) | Error::BadReference(_))) => {}
            (None, [_, _, ..], Err(Error::Ambiguous { .. })) => {}
            (name, fits, found) => prop_assert!(false, "{asked}: {name:?} {fits:?} {found:?}"),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let view = View::default();
        let _ = view.resolve_image(&text);
        if let Ok(Wanted::Named(Some(reference), _)) = parse_wanted(&text) {
            prop_assert_eq!(normalize(&reference), reference);
        }
    }
}
