//! Base64 (RFC 4648) as the registries' credentials need it: read in any of its forms, written in two.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Takes what is left over in the last letter for nothing, as other readers of Docker's file do.
const LENIENT: GeneralPurposeConfig =
    NO_PAD.with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireNone);

/// From either alphabet, padded or not; `None` if it is in neither.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT).decode(standard).ok()
}

/// In the alphabet for addresses, as the API's headers want it.
pub(super) fn encode_url(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// In the standard alphabet, as Docker's file has it.
pub(super) fn encode_standard(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(decode(&encode_standard(&bytes)), Some(bytes.clone()));
                prop_assert_eq!(decode(&encode_url(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = decode(&text);
        }
    }
}
