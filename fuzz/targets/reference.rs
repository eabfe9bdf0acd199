//! Image references: both ways of printing one give a text that means the same image.
#![no_main]

use creel_types::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
    assert_eq!(reference.familiar().parse(), Ok(reference.clone()));
    // Both end up in URLs and tables.
    let printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(printable(reference.registry()) && !reference.registry().contains('/'));
    assert!(reference.repository().split('/').all(|part| printable(part) && part != "." && part != ".."));
    let complete = reference.with_default_tag();
    assert!(complete.tag().is_some() || complete.digest().is_some());
});
