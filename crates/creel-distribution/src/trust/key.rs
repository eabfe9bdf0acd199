//! Public keys and what they say of a signature. Only `ring` computes anything here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};

/// SubjectPublicKeyInfo (RFC 5280) of a P-256 key up to its uncompressed point of 65 bytes (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of an Ed25519 key up to its 32 bytes (RFC 8410).
const EDWARDS: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// A key that signatures are verified by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// ECDSA over P-256 with SHA-256: what `cosign generate-key-pair` makes.
    P256([u8; 65]),
    /// Ed25519 over the payload itself.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Reads the one public key of a PEM file (RFC 7468, section 13).
    pub(crate) fn from_pem(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not a PEM file".to_owned())?;
        let (_, rest) = text.split_once(BEGIN).ok_or_else(|| format!("it has no `{BEGIN}`"))?;
        let (body, rest) = rest.split_once(END).ok_or_else(|| format!("it has no `{END}`"))?;
        if rest.contains(BEGIN) {
            return Err("it holds more than one key".to_owned());
        }
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| "its base64 is damaged".to_owned())?;
        if let Some(point) = der.strip_prefix(P256)
            && let Ok(point) = <[u8; 65]>::try_from(point)
            && point[0] == 4
        {
            return Ok(Self::P256(point));
        }
        if let Some(Ok(key)) = der.strip_prefix(EDWARDS).map(<[u8; 32]>::try_from) {
            return Ok(Self::Ed25519(key));
        }
        Err("it is neither an ECDSA key on P-256 nor an Ed25519 key, which are all that creel verifies by"
            .to_owned())
    }

    /// Whether this key has signed these bytes.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key): (&'static dyn VerificationAlgorithm, &[u8]) = match self {
            Self::P256(key) => (&ECDSA_P256_SHA256_ASN1, key),
            Self::Ed25519(key) => (&ED25519, key),
        };
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }
}
