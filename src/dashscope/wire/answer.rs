//! Reads a whole answer: the model's text, or an error.
//!
//! Reading is lenient, because the vendor's samples differ from each other and from its recorded traffic. One reader
//! serves both protocols: it looks for each value in all places where either protocol has it, and a member of the wrong
//! type counts as absent. A valid answer must have content of the model and no error. An error may come under any
//! status, at the top level, inside `error`, or in the first event of an unrequested stream; the service sends the last
//! with status 200.
//!
//! Damaged characters are read as U+FFFD (`json`). A body that cannot be read is an error, but a bill in it still
//! counts.

use std::time::Duration;

use super::events::{Events, Fields};
use super::received::Received;
use crate::dashscope::completion::{FinishReason, Word};
use crate::dashscope::fault::error::{Code, Defect, Verbatim};
use crate::dashscope::fault::verdict;
use crate::dashscope::fault::verdict::{Complaint, Failure};
use crate::json::{self, Tree};
use crate::units::{Tokens, Usage};

/// The number of bytes that are read of a body that is not JSON.
const PROSE_BYTES: usize = 512;

/// The model's answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelAnswer {
    pub(crate) text: String,
    /// The text without fragments that the model repeated, if the upstream made one.
    pub(crate) processed_text: Option<String>,
    pub(crate) words: Option<Vec<Word>>,
    pub(crate) kv_result: Option<Tree>,
    pub(crate) finish_reason: FinishReason,
    /// The bill; none if the answer states none.
    pub(crate) usage: Option<Usage>,
    pub(crate) request_id: Option<Code>,
}

/// A whole answer that is JSON and no error.
#[derive(Debug)]
pub(crate) struct Json {
    /// The body, unchanged.
    pub(crate) received: Received,
    pub(crate) value: Tree,
    /// The bill; none if the answer states none.
    pub(crate) usage: Option<Usage>,
    pub(crate) request_id: Option<Code>,
}

/// Reads `received`. If the bill does not state image tokens, those of `bound` count.
pub(crate) fn read(received: Received, bound: &Usage) -> Result<ModelAnswer, Failure> {
    content(json(received, bound)?)
}

/// Reads `received` up to the content of the model, which may be anything.
pub(crate) fn json(received: Received, bound: &Usage) -> Result<Json, Failure> {
    let body = &received.body;
    let json = object(body);
    let event = if json.is_none() { first_event(body) } else { None };
    let said = json.as_ref().or(event.as_ref().and_then(|event| event.data.as_ref()));
    let request_id = said.and_then(request_id).or_else(|| received.request_id.clone());
    let good = (200..300).contains(&received.status);
    let failure = match (json, event) {
        (Some(value), _) if good && !is_complaint(&value) => {
            let usage = usage(&value["usage"], bound);
            return Ok(Json { received, value, usage, request_id });
        }
        (Some(json), _) => judge(&json, received.status, &received),
        (None, Some(FirstEvent { data: Some(data), fields }))
            if !good || is_error(&fields, Some(&data)) =>
        {
            judge(&data, fields.status.unwrap_or(received.status), &received)
        }
        (None, Some(FirstEvent { data: None, fields })) if fields.is_named_error() => {
            verdict::judge(&prose(fields.error_status(), body, received.retry_after))
        }
        (None, _) if good => verdict::unusable(defect(body), None),
        (None, _) => verdict::judge(&prose(received.status, body, received.retry_after)),
    };
    Err(Failure { request_id, ..failure }.billed_as(stated(&received.body, bound)))
}

/// `bytes` as a JSON object.
pub(crate) fn object(bytes: &[u8]) -> Option<Tree> {
    json::read(bytes).ok().filter(Tree::is_object)
}

/// The bill in a body, even if the rest of the body is invalid.
fn stated(body: &[u8], bound: &Usage) -> Option<Usage> {
    let in_event = |fields: Fields| stated_in_part(&fields.data?, bound);
    stated_in_part(body, bound).or_else(|| all_fields(body).filter_map(in_event).last())
}

/// The bill in incomplete JSON. Not for events: a later one may state more.
pub(crate) fn stated_in_part(json: &[u8], bound: &Usage) -> Option<Usage> {
    usage(&json::outermost_member(json, "usage")?, bound)
}

/// The defect of a body with a successful status that is no JSON object.
fn defect(body: &[u8]) -> Defect {
    let is_json = body.iter().find(|byte| byte.is_ascii_graphic()) == Some(&b'{');
    if is_json { Defect::Unreadable } else { Defect::NotJson }
}

/// The upstream's id of an answer or of an error, in the place of the native protocol and of errors.
pub(crate) fn request_id(json: &Tree) -> Option<Code> {
    json["request_id"].as_str().and_then(Code::new)
}

/// The model's answer, in either protocol.
pub(crate) fn content(json: Json) -> Result<ModelAnswer, Failure> {
    let Json { value: mut json, usage, request_id, .. } = json;
    let pointer = if json["output"].is_object() { "/output/choices/0" } else { "/choices/0" };
    let written = json.take(pointer).and_then(|mut choice| {
        let content = choice.take("/message/content")?;
        Some(ModelAnswer {
            finish_reason: finish_reason(&choice["finish_reason"]),
            ..written(content)?
        })
    });
    match written {
        Some(answer) => Ok(ModelAnswer { usage, request_id, ..answer }),
        None => Err(Failure { request_id, ..verdict::unusable(Defect::NoContent, usage) }),
    }
}

/// The text of a message's content: a string, or the strings of its parts. `None` if it is something else, which would
/// be lost.
pub(crate) fn text(content: &Tree) -> Option<String> {
    match content {
        Tree::String(text) => Some(text.clone()),
        Tree::Array(parts) => parts.iter().map(text_of_part).collect(),
        _ => None,
    }
}

/// The text of a part; empty for one of another kind.
fn text_of_part(part: &Tree) -> Option<&str> {
    match part {
        Tree::String(text) => Some(text),
        Tree::Object(_) if part["text"].is_null() => Some(""),
        Tree::Object(_) => part["text"].as_str(),
        _ => None,
    }
}

/// Joins the parts of a message. In practice there is one, or none for a blank page.
fn written(content: Tree) -> Option<ModelAnswer> {
    let mut answer = ModelAnswer {
        text: text(&content)?,
        processed_text: None,
        words: None,
        kv_result: None,
        finish_reason: FinishReason::Other(None),
        usage: None,
        request_id: None,
    };
    let Tree::Array(parts) = content else { return Some(answer) };
    for mut part in parts {
        if let Some(text) = part["processed_text"].as_str() {
            answer.processed_text.get_or_insert_default().push_str(text);
        }
        let mut result = part.take("/ocr_result").unwrap_or_default();
        if let Some(words) = result["words_info"].as_array() {
            answer.words.get_or_insert_default().extend(words.iter().filter_map(word));
        }
        if let Some(fields) = result.take("/kv_result").filter(|fields| !fields.is_null()) {
            answer.kv_result = Some(fields);
        }
    }
    Some(answer)
}

fn word(value: &Tree) -> Option<Word> {
    Some(Word {
        text: value["text"].as_str()?.to_owned(),
        location: numbers(&value["location"]),
        rotate_rect: numbers(&value["rotate_rect"]),
    })
}

fn numbers<const N: usize>(value: &Tree) -> Option<[f64; N]> {
    let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Tree::as_f64).collect();
    numbers?.try_into().ok()
}

pub(crate) fn finish_reason(value: &Tree) -> FinishReason {
    match value.as_str() {
        Some("stop") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        other => FinishReason::Other(other.and_then(Code::new)),
    }
}

/// The bill in either protocol; none if a total is missing.
///
/// An input of zero is no bill either: every call has a picture, and none is free. The picture's tokens are part of the
/// input (Model Studio, "Qwen-OCR API reference"). If they are more, both count, since that errs upwards.
pub(crate) fn usage(usage: &Tree, bound: &Usage) -> Option<Usage> {
    let number = |pointers: &[&str]| {
        pointers.iter().find_map(|pointer| usage.pointer(pointer).and_then(Tree::as_u64))
    };
    let input = number(&["/input_tokens", "/prompt_tokens"]).filter(|input| *input > 0)?;
    let output = number(&["/output_tokens", "/completion_tokens"])?;
    let image = number(&[
        "/image_tokens",
        "/input_tokens_details/image_tokens",
        "/prompt_tokens_details/image_tokens",
    ]);
    let image = image.unwrap_or_else(|| bound.image.get().min(input));
    Some(Usage {
        image: Tokens::new(image),
        text: Tokens::new(input.saturating_sub(image)),
        output: Tokens::new(output),
    })
}

/// Determines the verdict on an error body, and keeps the body if it is about the caller's request.
fn judge(json: &Tree, status: u16, received: &Received) -> Failure {
    let failure = complaint(json, status, received.retry_after);
    // A redirect is no answer, whatever its body.
    let is_final = received.status < 300 || received.status >= 400;
    let verbatim = failure.fault.is_about_the_request() && is_final;
    let verbatim = verbatim.then(|| Box::new(Verbatim::of(received.status, &received.body)));
    Failure { verbatim, ..failure }
}

/// Determines the verdict on an error, from any place.
fn complaint(json: &Tree, status: u16, retry_after: Option<Duration>) -> Failure {
    let message = ["/message", "/msg", "/error/message", "/error"].iter().find_map(|pointer| {
        json.pointer(pointer).and_then(Tree::as_str).filter(|text| !text.is_empty())
    });
    verdict::judge(&Complaint {
        status,
        code: complaint_code(json),
        message: message.unwrap_or_default().to_owned(),
        retry_after,
    })
}

/// Determines the verdict on the error in an event of a stream, JSON or not.
pub(crate) fn told(fields: &Fields, data: &[u8], json: Option<&Tree>, bound: &Usage) -> Failure {
    let status = fields.error_status();
    let failure = match json {
        Some(json) => complaint(json, status, None),
        None => verdict::judge(&prose(status, data, None)),
    };
    failure.billed_as(stated_in_part(data, bound))
}

/// Whether a body has an error, under any status.
fn is_complaint(json: &Tree) -> bool {
    let error = &json["error"];
    complaint_code(json).is_some()
        || error.is_object()
        || error.as_str().is_some_and(|text| !text.is_empty())
}

/// The code of an error body, in any place. A number counts if it is an error status.
fn complaint_code(json: &Tree) -> Option<String> {
    ["/code", "/error/code", "/error/type"].iter().find_map(|pointer| {
        match json.pointer(pointer)? {
            Tree::String(code) if !code.is_empty() => Some(code.clone()),
            code @ Tree::Number(_) => {
                code.as_u64().filter(|code| *code >= 400).map(|code| code.to_string())
            }
            _ => None,
        }
    })
}

/// Whether an event is an error by its name, its status, or its data.
pub(crate) fn is_error(fields: &Fields, json: Option<&Tree>) -> bool {
    fields.is_named_error() || json.is_some_and(is_complaint)
}

/// An event of a stream.
struct FirstEvent {
    /// None if its data is no JSON object.
    data: Option<Tree>,
    /// Its other fields; among them the status, since the stream itself has 200.
    fields: Fields,
}

/// The first event with data in a body that is a stream of events.
fn first_event(body: &[u8]) -> Option<FirstEvent> {
    let mut fields = all_fields(body).find(Fields::has_data)?;
    let data = object(&fields.data.take()?);
    Some(FirstEvent { data, fields })
}

/// The fields of all events in a body.
fn all_fields(body: &[u8]) -> impl Iterator<Item = Fields> {
    let mut events = Events::default();
    events.push(body);
    // An error that is the only event may lack its blank line.
    events.push(b"\n\n");
    std::iter::from_fn(move || events.next()).map(|event| event.fields())
}

/// A body that is not JSON: the error page of a load balancer, or nothing.
fn prose(status: u16, body: &[u8], retry_after: Option<Duration>) -> Complaint {
    let beginning = &body[..body.len().min(PROSE_BYTES)];
    let message = String::from_utf8_lossy(beginning).into_owned();
    Complaint { status, code: None, message, retry_after }
}

/// A recorded answer of the vendor's service, for tests; none if the recordings are missing.
#[cfg(test)]
pub(crate) fn recorded(status: u16, name: &str) -> Option<Result<ModelAnswer, Failure>> {
    let folder = std::env::var("OCR_GATEWAY_TEST_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").to_owned());
    let path = format!("{folder}/dashscope_wire/{name}.response.body.txt");
    let Ok(body) = std::fs::read(&path) else {
        println!("skipped: no recording {name}");
        return None;
    };
    Some(read(Received { status, body, ..Received::default() }, &Usage::default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashscope::fault::error::{CallFault, Timeout};
    use crate::dashscope::fault::verdict::{AttemptBill, Repeat};

    const BOUND: Usage =
        Usage { image: Tokens::new(700), text: Tokens::new(60), output: Tokens::new(8192) };

    fn of(status: u16, body: &str) -> Result<ModelAnswer, Failure> {
        let received = Received { status, body: body.as_bytes().to_vec(), ..Received::default() };
        read(received, &BOUND)
    }

    fn tokens(image: u64, text: u64, output: u64) -> Usage {
        let new = Tokens::new;
        Usage { image: new(image), text: new(text), output: new(output) }
    }

    fn compatible(usage: &str) -> String {
        format!(
            r#"{{"id":"chatcmpl-1","choices":[{{"index":0,"finish_reason":"length","message":
            {{"role":"assistant","content":"text","refusal":null}}}}],"usage":{usage}}}"#
        )
    }

    #[test]
    fn the_compatible_protocol_is_understood() {
        let usage = r#"{"prompt_tokens":1185,"completion_tokens":72,"total_tokens":1257,
            "prompt_tokens_details":{"image_tokens":1001,"text_tokens":184,"cached_tokens":null}}"#;
        let answer = of(200, &compatible(usage)).unwrap();
        assert_eq!(answer.text, "text");
        assert_eq!(answer.finish_reason, FinishReason::Length);
        assert_eq!(answer.usage, Some(tokens(1001, 184, 72)));
    }

    #[test]
    fn a_bill_without_its_parts_takes_the_picture_s_tokens_from_the_quote() {
        let bill = |usage| of(200, &compatible(usage)).unwrap().usage;
        assert_eq!(
            bill(r#"{"prompt_tokens":752,"completion_tokens":1}"#),
            Some(tokens(700, 52, 1))
        );
        let null = r#"{"prompt_tokens":600,"completion_tokens":0,"prompt_tokens_details":null}"#;
        assert_eq!(bill(null), Some(tokens(600, 0, 0)));
    }

    #[test]
    fn a_bill_that_is_missing_or_free_is_none() {
        let zero = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
        for usage in [
            "null",
            "{}",
            "7",
            zero,
            r#"{"prompt_tokens":5}"#,
            r#"{"prompt_tokens":-5,"completion_tokens":1}"#,
        ] {
            assert_eq!(of(200, &compatible(usage)).unwrap().usage, None, "{usage}");
        }
    }

    #[test]
    fn a_blank_page_is_an_answer() {
        for content in [r#""""#, "[]", r#"[{"text":""}]"#] {
            let body = format!(
                r#"{{"output":{{"choices":[{{"finish_reason":"stop","message":{{"content":{content}}}}}]}}}}"#
            );
            let answer = of(200, &body).unwrap();
            assert_eq!((answer.text.as_str(), answer.finish_reason), ("", FinishReason::Stop));
        }
    }

    #[test]
    fn words_keep_what_can_be_read_of_them() {
        let body = r#"{"output":{"choices":[{"message":{"content":[{"text":"t","processed_text":"p","ocr_result":
            {"words_info":[{"text":"a","location":[-30,1,2,3,4,5,6,7.5],"rotate_rect":[1,2,3,4,90]},
            {"text":"b","location":[1],"rotate_rect":null},{"location":[]}]}}]}}]}}"#;
        let answer = of(200, body).unwrap();
        assert_eq!((answer.text.as_str(), answer.processed_text.as_deref()), ("t", Some("p")));
        let words = answer.words.unwrap();
        assert_eq!(words.len(), 2);
        assert_eq!(words[0].location, Some([-30.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5]));
        assert_eq!((words[1].location, words[1].rotate_rect), (None, None));
    }

    #[test]
    fn a_good_status_with_a_complaint_is_a_failure() {
        let codes = [
            (r#"{"code":"InvalidApiKey","message":"m","output":{}}"#, "account"),
            (r#"{"error":{"message":"m","type":"limit_requests"}}"#, "throttled"),
            (r#"{"error":{"message":"m"}}"#, "failed"),
            (r#"{"error":"m"}"#, "failed"),
            (r#"{"code":500,"msg":"m"}"#, "failed"),
        ];
        for (body, label) in codes {
            assert_eq!(of(200, body).unwrap_err().fault.label(), label, "{body}");
        }
    }

    #[test]
    fn empty_codes_beside_an_answer_are_no_complaint() {
        let body = compatible("null").replacen(
            '{',
            r#"{"code":"","message":"","error":null,"status_code":200,"#,
            1,
        );
        assert_eq!(of(200, &body).unwrap().text, "text");
    }

    #[test]
    fn a_good_status_without_an_answer_is_a_failure_whose_bill_is_kept() {
        let bodies = [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"message":{"content":null}}]}"#,
        ];
        for body in bodies {
            let failure = of(200, body).unwrap_err();
            assert_eq!(
                (failure.fault.label(), failure.bill),
                ("invalid_answer", AttemptBill::Unknown),
                "{body}"
            );
        }
        let billed = r#"{"choices":[],"usage":{"prompt_tokens":752,"completion_tokens":3}}"#;
        assert_eq!(of(200, billed).unwrap_err().bill, AttemptBill::Known(tokens(700, 52, 3)));
    }

    #[test]
    fn a_stream_that_nobody_asked_for_is_no_answer() {
        let body = r#"data:{"choices":[{"message":{"content":"half"}}]}"#;
        assert_eq!(of(200, body).unwrap_err().fault, CallFault::InvalidAnswer(Defect::NotJson));
    }

    #[test]
    fn an_error_in_a_stream_has_the_status_inside_it() {
        let body = "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{\"code\":\"InvalidParameter\",\"message\":\"m\",\"request_id\":\"r-1\"}\n\n";
        for status in [200, 502] {
            let failure = of(status, body).unwrap_err();
            let code = Code::new("InvalidParameter");
            assert_eq!(failure.fault, CallFault::Rejected { status: 400, code });
            assert_eq!(failure.request_id, Code::new("r-1"));
        }
    }

    #[test]
    fn an_error_billed_for_is_settled_and_not_repeated() {
        let body = r#"{"code":"InternalError","usage":{"input_tokens":752,"output_tokens":9}}"#;
        let failure = of(500, body).unwrap_err();
        assert_eq!(
            (failure.bill, failure.repeat),
            (AttemptBill::Known(tokens(700, 52, 9)), Repeat::Never)
        );
    }

    #[test]
    fn pages_of_proxies_are_judged_by_their_status() {
        assert_eq!(of(429, "<html>slow down</html>").unwrap_err().fault.label(), "throttled");
        assert_eq!(of(504, "").unwrap_err().fault, CallFault::Timeout(Timeout::Upstream));
        assert_eq!(
            of(502, "\u{0}\u{1}").unwrap_err().fault,
            CallFault::Failed { status: 502, code: None }
        );
    }

    #[test]
    fn the_request_id_is_taken_from_the_header_where_the_body_has_none() {
        let header = Code::new("from-header");
        let received = Received { status: 500, request_id: header.clone(), ..Received::default() };
        assert_eq!(read(received, &BOUND).unwrap_err().request_id, header);
    }

    #[test]
    fn the_recorded_text_is_understood() {
        let Some(read) = recorded(200, "multimodal-generation-vl-ocr-nosse") else { return };
        let answer = read.unwrap();
        assert!(answer.text.starts_with("读者对象") && answer.text.ends_with("它们。"));
        assert_eq!(answer.usage, Some(tokens(1219, 29, 225)));
        assert_eq!(answer.request_id, Code::new("195c98cd-4ee5-998b-b662-132b7aebc048"));
    }

    #[test]
    fn the_recorded_words_are_understood() {
        let name = "multimodal-generation-vl-ocr-advanced-recognition-nosse";
        let Some(read) = recorded(200, name) else { return };
        let answer = read.unwrap();
        let words = answer.words.unwrap();
        assert_eq!((words.len(), words[7].text.as_str()), (12, "Ciao!"));
        assert!(words[6].location.unwrap()[0] < 0.0, "a word that begins left of the picture");
        assert_eq!(answer.usage, Some(tokens(1862, 33, 432)));
    }

    #[test]
    fn the_recorded_fields_are_understood() {
        let name = "multimodal-generation-vl-ocr-key-information-extraction-nosse";
        let Some(read) = recorded(200, name) else { return };
        let answer = read.unwrap();
        let number = answer.kv_result.unwrap()["发票"]["发票号码"].as_str().map(str::to_owned);
        assert_eq!(number.as_deref(), Some("10283819"));
        assert_eq!(answer.usage, Some(tokens(310, 214, 65)));
    }

    #[test]
    fn the_recorded_errors_are_understood() {
        let recordings = [
            (401, "auth-error-nosse", "account", "a1c0561c-1dfe-98a6-a62f-983577b8bc5e"),
            (400, "parameter-error-nosse", "rejected", "a5898c04-d210-901b-965f-e4bd90478805"),
            (200, "parameter-error-sse", "rejected", "7671ecd8-93cc-9ee9-bc89-739f0fd8b809"),
        ];
        for (status, name, label, request_id) in recordings {
            let Some(read) = recorded(status, name) else { return };
            let failure = read.unwrap_err();
            assert_eq!(
                (failure.fault.label(), failure.bill),
                (label, AttemptBill::Nothing),
                "{name}"
            );
            assert_eq!(failure.request_id, Code::new(request_id));
        }
    }
}
