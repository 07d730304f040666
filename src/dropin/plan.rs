//! The maximum cost of a request, and the changes that enforce it.
//!
//! There are three changes (docs/drop-in.md lists them for callers): bounds for each image, a bound for the answer, and
//! a stream that states its bill. The rest of the body is sent unchanged.
//!
//! The bound of the text is the length of the body without its images' addresses, because a byte-level tokenizer never
//! makes more tokens than bytes. Text that the vendor adds for a task is bounded separately (`added_prompt`), and
//! members that could add more are refused (`member_table`). A prompt that is too long for the model is sent: the
//! vendor refuses it without charge, and only the vendor has the exact limit.

use std::sync::Arc;

use bytes::Bytes;

use super::asked::{Asked, AskedImage};
use super::edits::Edits;
use super::error::DropinError;
use super::outline::{Draft, Outline, OutlineNode};
use super::picture;
use super::request::DropinRequest;
use super::{compatible, native};
use crate::capacity::account::ByteAccount;
use crate::catalog::{Catalog, Model};
use crate::dashscope::settings::UnknownMembers;
use crate::dashscope::{DropinCall, Protocol};
use crate::metering::access;
use crate::metering::forecast::{ExpectedImages, Forecast};
use crate::quote::resize::Geometry;
use crate::quote::{self, CallTerms, Cap};
use crate::units::{Pixels, Tokens, Usage};

/// A request, planned before it is sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) forecast: Forecast,
    /// The largest `max_pixels` that is sent.
    pub(super) max_pixels: Pixels,
    /// Whether the caller did not ask for the bill in the stream. Only the gateway then reads it.
    pub(super) hides_bill: bool,
}

/// The facts about one image.
struct ImagePlan {
    geometry: Geometry,
    bound: Tokens,
    exact: Option<[Tokens; 2]>,
    saved: Tokens,
}

/// Reads a request, quotes it, and makes the body that is sent. `account` counts the memory that this takes.
///
/// # Errors
///
/// [`DropinError`] if the request cannot be sent.
pub(super) fn plan(
    catalog: &Catalog,
    request: &DropinRequest,
    unknown: UnknownMembers,
    account: &Arc<ByteAccount>,
) -> Result<(Plan, DropinCall), DropinError> {
    let draft = Draft::of(&request.body)?;
    let _held = account.hold(draft.working_bytes()).map_err(DropinError::NoRoom)?;
    let outline = draft.outline()?;
    let asked = match request.protocol {
        Protocol::Compatible => compatible::read(&outline, unknown)?,
        Protocol::Native => native::read(&outline, request.stream, unknown)?,
    };
    if asked.stream && !request.may_stream {
        let why = "needs HTTP/1.1, which tells a stream that breaks off from one that ends; behind nginx, \
                   set proxy_http_version 1.1";
        return Err(super::member::fault("/stream", why).into());
    }
    let tenant = &request.context.tenant;
    let model = access::model_for(catalog, tenant, Some(&asked.model))?;
    let cap = access::cap(tenant);
    let images = look_at_images(&outline, &asked, &model, cap, account)?;
    let output = quote::output(&model, cap);
    let limits = [asked.max_tokens, asked.max_completion_tokens].into_iter().flatten();
    let output = limits.map(Tokens::new).fold(output, Tokens::min);
    let bound = Usage {
        image: sum(images.iter().map(|image| image.bound)),
        text: text_bound(&outline, &asked, &model),
        output,
    };
    let call = DropinCall {
        protocol: request.protocol,
        body: changed(&outline, &asked, &images, output, &request.body),
        stream: asked.stream,
        resolves_oss: request.resolves_oss,
    };
    let saved = sum(images.iter().map(|image| image.saved));
    let expected = expected_images(&asked, &images);
    let plan = Plan {
        forecast: Forecast { model, bound, saved, saved_by_choice: Tokens::ZERO, images: expected },
        max_pixels: images.iter().map(|image| image.geometry.max_pixels).max().unwrap_or_default(),
        hides_bill: asked.stream && !asked.tells_bill,
    };
    Ok((plan, call))
}

/// The image tokens of the bill, if the gateway saw all images and the model is certain to read all of them.
fn expected_images(asked: &Asked<'_>, images: &[ImagePlan]) -> ExpectedImages {
    let exact: Option<Vec<_>> = images.iter().map(|image| image.exact).collect();
    let exact = exact.filter(|_| asked.messages == 1);
    exact.map_or(ExpectedImages::Unknown, |exact| {
        ExpectedImages::Sum([0, 1].map(|by| sum(exact.iter().map(|image| image[by]))))
    })
}

fn look_at_images(
    outline: &Outline<'_>,
    asked: &Asked<'_>,
    model: &Arc<Model>,
    cap: Cap,
    account: &Arc<ByteAccount>,
) -> Result<Vec<ImagePlan>, DropinError> {
    let look = |image: &AskedImage| {
        let Some(url) = outline.string(image.url) else {
            let why = "must be a text: the image's address";
            return Err(super::member::fault(image.pointer.as_str(), why).into());
        };
        let header = picture::look(&url, &image.pointer, account)?;
        // The vendor judges whether the text fits, so no room is reserved for it.
        let terms = CallTerms { model, text: Tokens::ZERO, wish: image.wish, cap };
        let quoted = if let Some(header) = header {
            quote::image(&terms, header.upright()).map(|quote| ImagePlan {
                geometry: quote.geometry,
                bound: quote.bound,
                exact: (!image.wish.straighten).then_some([quote.tokens, quote.clamped_tokens]),
                saved: quote.saved(),
            })
        } else {
            quote::unseen_image(&terms).map(|quote| ImagePlan {
                geometry: quote.geometry,
                bound: quote.bound,
                exact: None,
                saved: Tokens::ZERO,
            })
        };
        quoted.map_err(|error| DropinError::image(&image.pointer, error.into()))
    };
    asked.images.iter().map(look).collect()
}

fn text_bound(outline: &Outline<'_>, asked: &Asked<'_>, model: &Model) -> Tokens {
    let (mut at, mut bytes) = (0, asked.added_prompt_bytes);
    // Images are listed in the order of the body.
    for address in asked.images.iter().map(|image| outline.span(image.url)) {
        bytes = bytes.saturating_add(quote::prompt_bytes(outline.text(at..address.start)));
        at = address.end;
    }
    bytes = bytes.saturating_add(quote::prompt_bytes(outline.text(at..outline.length())));
    Tokens::new(bytes).saturating_add(model.figures.template_tokens)
}

/// The body to send.
fn changed(
    outline: &Outline<'_>,
    asked: &Asked<'_>,
    images: &[ImagePlan],
    output: Tokens,
    body: &Bytes,
) -> Vec<Bytes> {
    let mut edits = Edits::default();
    for (asked, image) in asked.images.iter().zip(images) {
        bound_image(outline, asked, &image.geometry, &mut edits);
    }
    let root = OutlineNode::ROOT;
    match asked.parameters {
        Some(parameters) => {
            edits.set(outline, parameters, "max_tokens", &output.to_string());
            if asked.max_completion_tokens.is_some_and(|asked| asked > output.get()) {
                edits.set(outline, parameters, "max_completion_tokens", &output.to_string());
            }
        }
        None => edits.set(outline, root, "parameters", &format!("{{\"max_tokens\":{output}}}")),
    }
    if asked.stream && !asked.tells_bill {
        match outline.member(root, "stream_options").filter(|&options| outline.is_object(options)) {
            Some(options) => edits.set(outline, options, "include_usage", "true"),
            None => edits.set(outline, root, "stream_options", "{\"include_usage\":true}"),
        }
    }
    edits.apply(body)
}

fn bound_image(outline: &Outline<'_>, image: &AskedImage, geometry: &Geometry, edits: &mut Edits) {
    let (min, max) = (geometry.min_pixels.to_string(), geometry.max_pixels.to_string());
    if image.is_bare {
        let url = outline.json(image.url);
        let object = format!("{{\"url\":{url},\"min_pixels\":{min},\"max_pixels\":{max}}}");
        edits.replace(outline, image.url, object);
    }
    for &holder in &image.holders {
        edits.set(outline, holder, "min_pixels", &min);
        edits.set(outline, holder, "max_pixels", &max);
    }
}

fn sum(tokens: impl Iterator<Item = Tokens>) -> Tokens {
    tokens.fold(Tokens::ZERO, Tokens::saturating_add)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::presence::Watch;
    use crate::admission::tab::Tab;
    use crate::extract::result_schema;
    use crate::metering::context::{Held, RequestContext};

    const ADDRESS: &str = "https://pictures.example/a.png";
    /// The cost of the largest image that the model reads by default.
    const UNSEEN: Tokens = Tokens::new(8_194);

    fn planned(
        protocol: Protocol,
        body: &str,
        tenant: Value,
    ) -> Result<(Plan, String), DropinError> {
        let tenant = Arc::new(serde_json::from_value(tenant).unwrap());
        let context = RequestContext {
            tenant,
            deadline: tokio::time::Instant::now().into_std(),
            watch: Watch::default(),
            tab: Tab::default(),
            held: Held::default(),
        };
        let request = DropinRequest {
            protocol,
            body: Bytes::copy_from_slice(body.as_bytes()),
            stream: false,
            may_stream: true,
            resolves_oss: false,
            context,
        };
        let gauge = prometheus::IntGauge::new("held", "held").unwrap();
        let account = Arc::new(ByteAccount::new(u64::MAX, gauge));
        let (catalog, unknown) = (Catalog::sample(), UnknownMembers::Refuse);
        let (plan, call) = plan(&catalog, &request, unknown, &account)?;
        assert_eq!(account.held(), 0);
        Ok((plan, String::from_utf8(call.body.concat()).unwrap()))
    }

    fn of(protocol: Protocol, body: &Value) -> Plan {
        planned(protocol, &body.to_string(), json!({ "name": "acme" })).unwrap().0
    }

    fn sum_of(forecast: &Forecast) -> Option<u64> {
        match forecast.images {
            ExpectedImages::Sum([documented, _]) => Some(documented.get()),
            _ => None,
        }
    }

    fn image(url: &str) -> Value {
        json!({ "type": "image_url", "image_url": { "url": url } })
    }

    fn chat(content: &Value) -> Value {
        json!({ "model": "sample", "messages": [{ "role": "user", "content": content }] })
    }

    fn generation(item: &Value, parameters: &Value) -> Value {
        json!({ "model": "sample", "parameters": parameters,
                "input": { "messages": [{ "role": "user", "content": [item] }] } })
    }

    fn png_url() -> String {
        let file =
            base64_simd::STANDARD.encode_to_string(crate::image::samples::whole_png(640, 480));
        format!("data:image/png;base64,{file}")
    }

    #[test]
    fn all_of_a_body_counts_as_text_but_the_addresses_of_its_images() {
        let text = json!({ "type": "text", "text": "x".repeat(1_000) });
        let body = chat(&json!([text, image(ADDRESS), text, image(ADDRESS), text]));
        let addresses = 2 * (ADDRESS.len() as u64 + 2);
        // The model's own prompt, and the words of its template around a message.
        let added = 101 + 32;
        let expected = body.to_string().len() as u64 - addresses + added;
        assert_eq!(of(Protocol::Compatible, &body).forecast.bound.text.get(), expected);
    }

    #[test]
    fn every_image_counts() {
        let (seen, unseen) = (image(&png_url()), image(ADDRESS));
        let bound =
            |images: Value| of(Protocol::Compatible, &chat(&images)).forecast.bound.image.get();
        assert_eq!(bound(json!([unseen])), UNSEEN.get());
        assert_eq!(bound(json!([seen, unseen, seen])), 302 + UNSEEN.get() + 302);
        assert_eq!(bound(json!("no image")), 0);
    }

    #[test]
    fn the_bill_of_images_is_expected_where_all_are_seen_and_surely_count() {
        let seen = image(&png_url());
        let expected = |body: &Value| sum_of(&of(Protocol::Compatible, body).forecast);
        assert_eq!(expected(&chat(&json!([seen, seen]))), Some(604));
        assert_eq!(expected(&chat(&json!([seen, image(ADDRESS)]))), None);
        // Some models look at the last message only.
        let mut turns = chat(&json!([seen]));
        let turn = turns["messages"][0].clone();
        turns["messages"].as_array_mut().unwrap().push(turn);
        assert_eq!(expected(&turns), None);
    }

    #[test]
    fn a_straightened_image_is_bounded_and_not_expected() {
        let item = json!({ "image": png_url(), "enable_rotate": true });
        let native = of(Protocol::Native, &generation(&item, &json!({})));
        let mut item = image(&png_url());
        item["enable_rotate"] = true.into();
        let beside = of(Protocol::Compatible, &chat(&json!([item])));
        item["image_url"] = png_url().into();
        let bare = of(Protocol::Compatible, &chat(&json!([item])));
        for plan in [native, beside, bare] {
            assert_eq!((plan.forecast.bound.image, sum_of(&plan.forecast)), (UNSEEN, None));
        }
    }

    #[test]
    fn what_a_text_wishes_for_an_image_is_refused() {
        for (name, value) in [
            ("enable_rotate", json!(true)),
            ("min_pixels", json!(8_000_000)),
            ("max_pixels", json!(8_000_000)),
            ("enable_rotate", json!(false)),
            ("max_pixels", Value::Null),
        ] {
            let is_wish = !matches!(value, Value::Null | Value::Bool(false));
            let mut text = json!({ "type": "text", "text": "a" });
            text[name] = value;
            let mut native = generation(&json!({ "image": png_url() }), &json!({}));
            let content = native["input"]["messages"][0]["content"].as_array_mut().unwrap();
            content.push(text.clone());
            let compatible = chat(&json!([image(&png_url()), text]));
            for (protocol, body) in [(Protocol::Compatible, compatible), (Protocol::Native, native)]
            {
                let planned = planned(protocol, &body.to_string(), json!({ "name": "acme" }));
                assert_eq!(planned.is_err(), is_wish, "{name}");
            }
        }
    }

    #[test]
    fn a_schema_of_the_answer_and_a_task_count_on_both_protocols() {
        let format = json!({ "type": "json_schema", "json_schema": { "schema": { "a": "b" } } });
        let parameters = json!({ "response_format": format, "ocr_options": { "task": "x" } });
        let mut compatible = chat(&json!("a"));
        for (name, value) in parameters.as_object().unwrap() {
            compatible[name] = value.clone();
        }
        let added = 900 + result_schema::prompt_bytes_bound(&format) + 32;
        let native = generation(&json!({ "text": "a" }), &parameters);
        for (protocol, body) in [(Protocol::Compatible, compatible), (Protocol::Native, native)] {
            let expected = body.to_string().len() as u64 + added;
            assert_eq!(of(protocol, &body).forecast.bound.text.get(), expected);
        }
    }

    #[test]
    fn the_prompt_of_a_task_and_its_schema_count_beside_the_body() {
        let text = |options: &str| {
            let body = generation(&json!({ "image": ADDRESS }), &json!({ "ocr_options": "?" }));
            let body = body.to_string().replace("\"?\"", options);
            let (plan, _) = planned(Protocol::Native, &body, json!({ "name": "acme" })).unwrap();
            plan.forecast.bound.text.get() - (body.len() - ADDRESS.len() - 2) as u64 - 32
        };
        let with =
            |schema: &str| text(&format!("{{\"task_config\":{{\"result_schema\":{schema}}}}}"));
        assert_eq!(text("null"), 101);
        assert_eq!(text("{\"task\":\"table_parsing\"}"), 900);
        let schema = json!({ "total": "the sum", "list": [{ "name": "" }] });
        let written = result_schema::prompt_bytes_bound(&schema);
        assert_eq!(with(&schema.to_string()), 900 + written);
        for hidden in ["{\"taskConfig\":{}}", "{\"task_config\":{\"resultSchema\":{}}}"] {
            let options: serde_json::Value = serde_json::from_str(hidden).unwrap();
            let body = generation(&json!({ "image": ADDRESS }), &json!({ "ocr_options": options }));
            let refused = planned(Protocol::Native, &body.to_string(), json!({ "name": "acme" }));
            assert!(refused.is_err(), "{hidden}");
        }
        // Half a surrogate pair is valid JSON, but no Rust string can hold it.
        assert_eq!(with("{\"a\":\"\\ud800\"}"), 900 + 16 * 14);
    }

    #[test]
    fn an_answer_is_bounded_by_either_name_of_its_limit() {
        let tenant = json!({ "name": "acme", "max_tokens": 500 });
        let sent = |limits: &str| {
            let body = format!(
                r#"{{"model":"sample",{limits},"messages":[{{"role":"user","content":"a"}}]}}"#
            );
            let (plan, sent) = planned(Protocol::Compatible, &body, tenant.clone()).unwrap();
            let sent: Value = serde_json::from_str(&sent).unwrap();
            let limit = |name: &str| sent[name].as_u64();
            (plan.forecast.bound.output.get(), limit("max_tokens"), limit("max_completion_tokens"))
        };
        assert_eq!(sent(r#""max_completion_tokens":9000"#), (500, Some(500), Some(500)));
        assert_eq!(sent(r#""max_completion_tokens":50"#), (50, Some(50), Some(50)));
        let both = r#""max_tokens":20,"max_completion_tokens":50"#;
        assert_eq!(sent(both), (20, Some(20), Some(20)));
    }

    #[test]
    fn more_images_than_any_model_reads_are_refused() {
        let images = |number| chat(&Value::from(vec![image(ADDRESS); number])).to_string();
        let plan = |body: &str| planned(Protocol::Compatible, body, json!({ "name": "acme" }));
        assert!(plan(&images(256)).is_ok());
        let refused = plan(&images(257)).unwrap_err().to_string();
        assert!(refused.contains("257 images"), "{refused}");
    }

    #[test]
    fn the_largest_max_pixels_of_all_images_is_told() {
        let mut small = image(ADDRESS);
        small["max_pixels"] = 16_384.into();
        let plan = of(Protocol::Compatible, &chat(&json!([small, image(ADDRESS), small])));
        assert_eq!(plan.max_pixels.get(), 8_388_608);
    }
}
