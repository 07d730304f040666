//! What an answer depends on.
//!
//! Two requests with one fingerprint get one answer, so the fingerprint has everything that may change an answer. The
//! structs of options and of the tenant's settings are destructured completely. So a new member does not compile until
//! somebody decides here whether it is part of the fingerprint.

use bytes::Bytes;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::request::{OcrOptions, OcrRequest};
use crate::auth::tenant::Tenant;
use crate::metering::error::MeteringError;
use crate::result_cache::key::{EntryKey, KeyParts};

/// Changes when an entry is written otherwise. The version of the program is part of each fingerprint, too.
const ENTRY_FORMAT: &str = "1";

/// The longest file in bytes that is hashed on the reactor, in a third of a millisecond at most.
const INLINE_BYTES: usize = 128 * 1024;

/// The SHA-256 of something.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// The fingerprint of a request that `model` answers under the settings `configuration`.
pub(super) fn of(
    parts: KeyParts,
    configuration: &Digest,
    request: &OcrRequest,
    model: &str,
    file: &Digest,
) -> EntryKey {
    let parts = parts
        .part("format", ENTRY_FORMAT)
        .part("version", env!("CARGO_PKG_VERSION"))
        .part("configuration", configuration)
        .part("model", model)
        .part("file", file);
    with_tenant(with_options(parts, &request.options), &request.context.tenant).finish()
}

/// Adds what a caller may ask for. The debug form of a value is unique, and the same in one version of the program.
fn with_options(parts: KeyParts, options: &OcrOptions) -> KeyParts {
    let OcrOptions {
        // The name of the model that it stands for is in the fingerprint.
        model: _,
        prompt,
        languages,
        task,
        wish,
        auto_pixels,
        rotate,
        pages,
        dpi,
        pdf_text,
        downscale,
        markdown,
        detail,
        searchable,
        schema,
        text_beside,
        is_all_or_nothing,
        // The caller's own object, which is not part of what is kept.
        metadata: _,
    } = options;
    parts
        .part("prompt", format!("{prompt:?}"))
        .part("languages", format!("{languages:?}"))
        .part("task", format!("{task:?}"))
        .part("wish", format!("{wish:?}"))
        .part("auto_pixels", format!("{auto_pixels:?}"))
        .part("rotate", format!("{rotate:?}"))
        .part("pages", format!("{pages:?}"))
        .part("dpi", format!("{dpi:?}"))
        .part("pdf_text", format!("{pdf_text:?}"))
        .part("downscale", format!("{downscale:?}"))
        .part("markdown", format!("{markdown:?}"))
        .part("detail", format!("{detail:?}"))
        .part("searchable", format!("{searchable:?}"))
        .part("schema", format!("{:?}", schema.as_ref().map(|schema| schema.digest())))
        .part("text_beside", format!("{text_beside:?}"))
        .part("is_all_or_nothing", format!("{is_all_or_nothing:?}"))
}

/// Adds the tenant, and those of its settings that may change an answer or whether it may be given.
fn with_tenant(parts: KeyParts, tenant: &Tenant) -> KeyParts {
    let Tenant {
        name,
        max_pixels,
        on_exceed,
        max_tokens,
        models,
        regions,
        pdf_text,
        auto_pixels,
        escalate,
        // A shorter time also ends what was kept for a longer one.
        cache_ttl,
        // How much may be spent, and how fast.
        requests_per_minute: _,
        tokens_per_minute: _,
        concurrency: _,
        daily_tokens: _,
        monthly_tokens: _,
        daily_cost: _,
        monthly_cost: _,
        unknown_bill: _,
        // A tenant that is disabled has no valid key.
        disabled: _,
        of_file: _,
        // They change what is learnt from answers.
        auto_audit: _,
        auto_aim: _,
    } = tenant;
    parts
        .part("tenant", name.as_str())
        .part("tenant.max_pixels", format!("{max_pixels:?}"))
        .part("tenant.on_exceed", format!("{on_exceed:?}"))
        .part("tenant.max_tokens", format!("{max_tokens:?}"))
        .part("tenant.models", format!("{models:?}"))
        .part("tenant.regions", format!("{regions:?}"))
        .part("tenant.pdf_text", format!("{pdf_text:?}"))
        .part("tenant.auto_pixels", format!("{auto_pixels:?}"))
        .part("tenant.escalate", format!("{escalate:?}"))
        .part("tenant.cache_ttl", format!("{cache_ttl:?}"))
}

/// The SHA-256 of a file. A long one is read on the blocking pool. `memory` counts for the file until then.
///
/// # Errors
///
/// [`MeteringError::Interrupted`] if the reader panicked.
pub(super) async fn digest_of<M: Send + 'static>(
    file: &Bytes,
    memory: M,
) -> Result<Digest, MeteringError> {
    if file.len() <= INLINE_BYTES {
        return Ok(sha256(file));
    }
    let file = file.clone();
    let hashing = tokio::task::spawn_blocking(move || {
        let digest = sha256(&file);
        drop((file, memory));
        digest
    });
    hashing.await.map_err(|_panicked| MeteringError::Interrupted)
}

/// The SHA-256 of these bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut sum = [0; SHA256_OUTPUT_LEN];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::auth::tenant::PdfText;
    use crate::dashscope::Task;
    use crate::extract::schema::Schema;
    use crate::ocr::request::tests::request;
    use crate::ocr::request::{Detail, Downscale, Rotate, TextBeside};
    use crate::quote::Wish;
    use crate::random::SeededRandom;
    use crate::result_cache::key::KeyMaker;
    use crate::units::Pixels;

    fn key(request: &OcrRequest, [configuration, file]: [u8; 2], model: &str) -> EntryKey {
        let maker = KeyMaker::of_process(&SeededRandom::new(1));
        of(maker.begin(), &[configuration; 32], request, model, &[file; 32])
    }

    fn schema(value: &Value) -> Arc<Schema> {
        Arc::new(Schema::parse(value).unwrap())
    }

    /// Options that differ from the default in one thing each.
    fn options() -> Vec<OcrOptions> {
        let default = OcrOptions::default;
        let wish = |min, max| Wish { min_pixels: min, max_pixels: max, ..Wish::default() };
        let some = Some(Pixels::new(100_000));
        let field =
            |kind: &str| json!({ "type": "object", "properties": { "a": { "type": kind } } });
        let bounded = json!({ "type": "object",
            "properties": { "a": { "type": "string", "maxLength": 3 } } });
        vec![
            default(),
            OcrOptions { prompt: Some(String::new()), ..default() },
            OcrOptions { prompt: Some("read".to_owned()), ..default() },
            OcrOptions { languages: vec!["de".to_owned()], ..default() },
            OcrOptions { languages: vec!["de".to_owned(), "fr".to_owned()], ..default() },
            OcrOptions { task: Task::named("table_parsing"), ..default() },
            OcrOptions { task: Task::named("formula_recognition"), ..default() },
            OcrOptions { wish: wish(some, None), ..default() },
            OcrOptions { wish: wish(None, some), ..default() },
            OcrOptions { auto_pixels: true, ..default() },
            OcrOptions { rotate: Rotate::Auto, ..default() },
            OcrOptions { rotate: Rotate::Off, ..default() },
            OcrOptions { pages: Some("1".parse().unwrap()), ..default() },
            OcrOptions { pages: Some("1-".parse().unwrap()), ..default() },
            OcrOptions { dpi: Some(100), ..default() },
            OcrOptions { pdf_text: Some(PdfText::Off), ..default() },
            OcrOptions { pdf_text: Some(PdfText::Prefer), ..default() },
            OcrOptions { downscale: Downscale::Always, ..default() },
            OcrOptions { downscale: Downscale::Never, ..default() },
            OcrOptions { markdown: true, ..default() },
            OcrOptions { detail: Detail::Lines, ..default() },
            OcrOptions { searchable: true, ..default() },
            OcrOptions { schema: Some(schema(&field("string"))), ..default() },
            OcrOptions { schema: Some(schema(&field("number"))), ..default() },
            OcrOptions { schema: Some(schema(&bounded)), ..default() },
            OcrOptions { text_beside: TextBeside::Read, ..default() },
            OcrOptions { text_beside: TextBeside::Ground, ..default() },
            OcrOptions { is_all_or_nothing: true, ..default() },
        ]
    }

    #[test]
    fn each_option_that_changes_an_answer_makes_another_name() {
        let acme = || json!({ "name": "acme" });
        let mut seen = HashMap::new();
        for (index, options) in options().into_iter().enumerate() {
            let same = key(&request(acme(), options.clone()), [0, 0], "m");
            assert_eq!(key(&request(acme(), options), [0, 0], "m"), same);
            if let Some(other) = seen.insert(same, index) {
                panic!("options {other} and {index} have one name");
            }
        }
    }

    #[test]
    fn file_model_configuration_and_tenant_make_another_name() {
        let plain = || request(json!({ "name": "acme" }), OcrOptions::default());
        let other = request(json!({ "name": "acme.eu" }), OcrOptions::default());
        let names = [
            key(&plain(), [0, 0], "m"),
            key(&plain(), [0, 1], "m"),
            key(&plain(), [1, 0], "m"),
            key(&plain(), [0, 0], "n"),
            key(&other, [0, 0], "m"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
        }
    }

    #[test]
    fn settings_of_a_tenant_that_change_an_answer_make_another_name_and_budgets_do_not() {
        let of = |tenant: Value| key(&request(tenant, OcrOptions::default()), [0, 0], "m");
        let plain = of(json!({ "name": "acme" }));
        for (setting, value) in [
            ("max_pixels", json!(100_000)),
            ("on_exceed", json!("reject")),
            ("max_tokens", json!(10)),
            ("models", json!(["m"])),
            ("regions", json!(["beijing"])),
            ("pdf_text", json!("prefer")),
            ("auto_pixels", json!(true)),
            ("escalate", json!(true)),
            ("cache_ttl", json!(60)),
        ] {
            assert_ne!(of(json!({ "name": "acme", (setting): value })), plain, "{setting}");
        }
        for setting in ["rpm", "tpm", "concurrency", "daily_tokens", "monthly_tokens"] {
            assert_eq!(of(json!({ "name": "acme", (setting): 7 })), plain, "{setting}");
        }
    }

    #[test]
    fn the_caller_s_own_object_and_the_spelling_of_the_model_change_nothing() {
        let plain = || OcrOptions::default();
        let of = |options| key(&request(json!({ "name": "acme" }), options), [0, 0], "m");
        let own = OcrOptions { metadata: Some(json!({ "a": 1 })), ..plain() };
        assert_eq!(of(own), of(plain()));
        assert_eq!(of(OcrOptions { model: Some("m".to_owned()), ..plain() }), of(plain()));
    }
}
