//! Reads a stream while it is passed on: text, bill, and whether the stream is complete.
//!
//! The two protocols end differently. The compatible one sends a chunk with the bill and no choices, and then `[DONE]`.
//! DashScope's own states a running total in every event and ends with the event that has a `finish_reason`, which is
//! the string `"null"` until then (Model Studio, "Qwen-OCR API reference"). A connection that merely closes completes
//! neither. A running total is not a bill. It becomes one when the model has finished, and stops being one when text
//! comes without a new total.
//!
//! An event that cannot be read ends the stream for its caller, since its content would be missing. Later events are
//! read only for the bill.
//!
//! A stream has one answer: requests for several are refused before they are sent.

use super::answer;
use super::events::{Event, Fields};
use crate::dashscope::completion::FinishReason;
use crate::dashscope::fault::error::Code;
use crate::dashscope::fault::verdict::Failure;
use crate::dashscope::protocol::Protocol;
use crate::json::{self, Tree};
use crate::units::Usage;

/// The end of a stream in the compatible protocol.
const DONE: &[u8] = b"[DONE]";

/// The state of one stream.
#[derive(Debug)]
pub(crate) struct StreamParser {
    protocol: Protocol,
    /// The bound of the call, for bills without their parts.
    bound: Usage,
    usage: Option<Usage>,
    /// Whether the bill came in an event of its own, as at the end of the compatible protocol.
    is_final: bool,
    finish_reason: Option<FinishReason>,
    done: bool,
    request_id: Option<Code>,
    failure: Option<Failure>,
    is_damaged: bool,
}

/// The content of one event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The text that the model wrote.
    pub(crate) text: String,
    /// The purpose of the event.
    pub(crate) kind: EventKind,
}

/// The purpose of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Text of the model, or anything else that is passed on.
    #[default]
    Content,
    /// Only the bill.
    Bill,
    /// An error about the account and not about the request, or an event that cannot be read. Callers do not get it.
    Withheld,
}

impl StreamParser {
    pub(crate) const fn new(protocol: Protocol, bound: Usage) -> Self {
        Self {
            protocol,
            bound,
            usage: None,
            is_final: false,
            finish_reason: None,
            done: false,
            request_id: None,
            failure: None,
            is_damaged: false,
        }
    }

    /// Stores the id from the head of the response. An id in an event replaces it; events of the compatible protocol
    /// have none.
    pub(crate) fn note_head(&mut self, request_id: Option<Code>) {
        self.request_id = request_id;
    }

    /// Reads the next event.
    pub(crate) fn see(&mut self, event: &Event) -> Seen {
        let fields = event.fields();
        let Some(data) = fields.data.as_deref().filter(|_| fields.has_data()) else {
            // Clients skip lines that they do not know, so the data of such an event would be missing.
            return if fields.is_stray() { self.see_damage(&[]) } else { Seen::default() };
        };
        if data.trim_ascii() == DONE {
            self.done = true;
            return Seen::default();
        }
        let json = answer::object(data);
        if let Some(id) = json.as_ref().and_then(answer::request_id) {
            self.request_id = Some(id);
        }
        if answer::is_error(&fields, json.as_ref()) {
            return self.see_error(&fields, data, json.as_ref());
        }
        let seen = json.and_then(|json| self.see_answer(json));
        seen.unwrap_or_else(|| self.see_damage(data))
    }

    fn see_error(&mut self, fields: &Fields, data: &[u8], json: Option<&Tree>) -> Seen {
        let failure = answer::told(fields, data, json, &self.bound);
        let told = failure.fault.is_about_the_request();
        self.failure.get_or_insert(failure);
        let kind = if told { EventKind::Content } else { EventKind::Withheld };
        Seen { kind, ..Seen::default() }
    }

    /// Reads a part of the answer; none if its text cannot be read.
    fn see_answer(&mut self, mut json: Tree) -> Option<Seen> {
        let usage = answer::usage(&json["usage"], &self.bound);
        let native = self.protocol == Protocol::Native;
        let output = if native { json.take("/output").unwrap_or_default() } else { json };
        let choices = &output["choices"];
        if !(is_absent_or_object(&output) && (choices.is_null() || choices.as_array().is_some())) {
            return None;
        }
        let choice = output.pointer("/choices/0");
        // With `result_format` "text" the native protocol has no choices: the text is in the output.
        let choice = choice.or_else(|| (!output["text"].is_null()).then_some(&output));
        let has_content = choice.is_some();
        let text = choice.map_or_else(|| Some(String::new()), text);
        if let Some(choice) = choice {
            self.see_end(&choice["finish_reason"]);
        }
        let is_bill = !native && !has_content && usage.is_some();
        self.usage = if has_content { usage } else { usage.or(self.usage) };
        self.is_final = is_bill;
        let kind = if is_bill { EventKind::Bill } else { EventKind::Content };
        Some(Seen { text: text?, kind })
    }

    /// Looks for a bill in an event that cannot be read.
    fn see_damage(&mut self, data: &[u8]) -> Seen {
        // After the end, no content can be missing.
        self.is_damaged |= !self.is_complete();
        if let Some(usage) = answer::stated_in_part(data, &self.bound) {
            let choices = json::outermost_member(data, "choices");
            self.usage = Some(usage);
            self.is_final = choices.is_some_and(|choices| choices == Tree::Array(Vec::new()));
        }
        Seen { kind: EventKind::Withheld, ..Seen::default() }
    }

    fn see_end(&mut self, finish_reason: &Tree) {
        match finish_reason.as_str() {
            None | Some("null" | "") => {}
            Some(_) => self.finish_reason = Some(answer::finish_reason(finish_reason)),
        }
    }

    /// Whether the stream is complete.
    pub(crate) const fn is_complete(&self) -> bool {
        match self.protocol {
            Protocol::Compatible => self.done,
            Protocol::Native => self.finish_reason.is_some(),
        }
    }

    /// Whether an event could not be read.
    pub(crate) const fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// The final bill, if it is known.
    pub(crate) fn bill(&self) -> Option<Usage> {
        self.usage.filter(|_| self.is_final || self.is_complete())
    }

    /// The reason why the model stopped.
    pub(crate) fn finish_reason(&self) -> FinishReason {
        self.finish_reason.clone().unwrap_or(FinishReason::Other(None))
    }

    /// The upstream's id of the stream.
    pub(crate) const fn request_id(&self) -> Option<&Code> {
        self.request_id.as_ref()
    }

    /// The error that an event of the stream reported.
    pub(crate) const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// The text of a choice, in the place of either protocol; `None` if that place holds something else.
fn text(choice: &Tree) -> Option<String> {
    if !choice.is_object()
        || !["delta", "message"].iter().all(|name| is_absent_or_object(&choice[name]))
    {
        return None;
    }
    let places = ["/delta/content", "/message/content", "/text"];
    let mut found = places.iter().filter_map(|place| choice.pointer(place));
    match found.find(|content| !content.is_null()) {
        None => Some(String::new()),
        Some(content) => answer::text(content),
    }
}

fn is_absent_or_object(place: &Tree) -> bool {
    place.is_null() || place.is_object()
}

#[cfg(test)]
mod tests {
    use super::super::events::Events;
    use super::*;
    use crate::units::Tokens;

    const BOUND: Usage =
        Usage { image: Tokens::new(700), text: Tokens::new(60), output: Tokens::new(8192) };

    fn heard(protocol: Protocol, stream: &str) -> (StreamParser, Vec<Seen>) {
        let (mut parser, mut events) = (StreamParser::new(protocol, BOUND), Events::default());
        events.push(stream.as_bytes());
        let seen = std::iter::from_fn(|| events.next()).map(|event| parser.see(&event)).collect();
        (parser, seen)
    }

    const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}],\"usage\":null}\n\n";
    const STOP: &str =
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}]}\n\n";
    const BILL: &str =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":752,\"completion_tokens\":9}}\n\n";

    #[test]
    fn a_compatible_stream_ends_with_its_mark_and_not_with_its_bill() {
        let (parser, seen) = heard(Protocol::Compatible, &format!("{DELTA}{STOP}{BILL}"));
        assert_eq!(seen[0], Seen { text: "a".to_owned(), kind: EventKind::Content });
        assert_eq!([seen[1].kind, seen[2].kind], [EventKind::Content, EventKind::Bill]);
        assert_eq!((parser.is_complete(), parser.bill().unwrap().output.get()), (false, 9));
        let (parser, _) =
            heard(Protocol::Compatible, &format!("{DELTA}{STOP}{BILL}data: [DONE]\n\n"));
        assert_eq!((parser.is_complete(), parser.finish_reason()), (true, FinishReason::Stop));
        let (parser, _) =
            heard(Protocol::Compatible, &format!("{DELTA}{STOP}{BILL}data: [DONE] \n\n"));
        assert!(parser.is_complete(), "a blank behind the mark changes nothing");
    }

    #[test]
    fn a_stream_that_ends_without_a_bill_has_none() {
        let (parser, _) = heard(Protocol::Compatible, &format!("{DELTA}{STOP}data: [DONE]\n\n"));
        assert_eq!((parser.is_complete(), parser.bill()), (true, None));
    }

    #[test]
    fn a_running_total_is_a_bill_only_once_the_model_has_finished() {
        let event = |reason: &str, output: u64| {
            format!(
                "id:1\nevent:result\n:HTTP_STATUS/200\ndata:{{\"output\":{{\"choices\":[{{\"message\":\
                 {{\"content\":[{{\"text\":\"a\"}}]}},\"finish_reason\":{reason}}}]}},\"usage\":{{\
                 \"input_tokens\":752,\"output_tokens\":{output},\"image_tokens\":728}},\"request_id\":\"r\"}}\n\n"
            )
        };
        let (parser, seen) = heard(Protocol::Native, &event("\"null\"", 3));
        assert_eq!(
            (seen[0].text.as_str(), parser.is_complete(), parser.bill()),
            ("a", false, None)
        );
        let whole = event("\"null\"", 3) + &event("null", 4) + &event("\"length\"", 5);
        let (parser, _) = heard(Protocol::Native, &whole);
        assert!(parser.is_complete());
        assert_eq!(parser.bill().unwrap().output.get(), 5);
        assert_eq!(parser.finish_reason(), FinishReason::Length);
        assert_eq!(parser.request_id().map(Code::as_str), Some("r"));
    }

    #[test]
    fn a_native_stream_of_bare_text_ends_with_its_reason() {
        let event = |reason: &str| {
            format!(
                "data:{{\"output\":{{\"text\":\"a\",\"finish_reason\":\"{reason}\"}},\"usage\":{{\
                 \"input_tokens\":752,\"output_tokens\":3,\"image_tokens\":728}}}}\n\n"
            )
        };
        let (parser, seen) = heard(Protocol::Native, &(event("null") + &event("stop")));
        assert_eq!((seen[0].text.as_str(), parser.is_complete()), ("a", true));
        assert_eq!(parser.bill().unwrap().output.get(), 3);
    }

    #[test]
    fn an_error_under_way_is_kept_with_its_status() {
        let stream = "id:1\nevent:error\n:HTTP_STATUS/400\ndata:{\"code\":\"InvalidParameter\",\"message\":\"m\"}\n\n";
        let (parser, _) = heard(Protocol::Native, stream);
        assert_eq!(parser.failure().unwrap().fault.label(), "rejected");
        assert!(!parser.is_complete());
    }

    #[test]
    fn an_error_that_speaks_of_the_account_is_withheld() {
        let event = |code: &str| format!("data: {{\"error\":{{\"code\":\"{code}\"}}}}\n\n");
        for (code, kind) in [
            ("data_inspection_failed", EventKind::Content),
            ("internal_error", EventKind::Withheld),
            ("Arrearage", EventKind::Withheld),
        ] {
            let (_, seen) = heard(Protocol::Compatible, &event(code));
            assert_eq!(seen[0].kind, kind, "{code}");
        }
    }

    #[test]
    fn a_running_total_that_was_overtaken_is_no_bill() {
        let running =
            DELTA.replace("null}\n", "{\"prompt_tokens\":752,\"completion_tokens\":3}}\n");
        assert_ne!(running, DELTA);
        let (parser, _) =
            heard(Protocol::Compatible, &format!("{running}{DELTA}{STOP}data: [DONE]\n\n"));
        assert_eq!((parser.is_complete(), parser.bill()), (true, None));
        let (parser, _) = heard(Protocol::Compatible, &format!("{DELTA}{running}data: [DONE]\n\n"));
        assert_eq!(parser.bill().unwrap().output.get(), 3);
        let (parser, _) = heard(Protocol::Compatible, &format!("{BILL}{running}"));
        assert_eq!((parser.is_complete(), parser.bill()), (false, None));
    }

    #[test]
    fn what_cannot_be_read_is_withheld_and_the_bill_is_still_found() {
        let cut = DELTA.replace("null}\n", "nul\n");
        let (parser, seen) = heard(Protocol::Compatible, &format!("{DELTA}{cut}{STOP}{BILL}"));
        assert_eq!((seen[1].kind, seen[1].text.as_str()), (EventKind::Withheld, ""));
        assert_eq!((parser.is_damaged(), parser.bill().unwrap().output.get()), (true, 9));
        let cut = BILL.replace("}\n", "\n");
        let (parser, _) = heard(Protocol::Compatible, &format!("{DELTA}{STOP}{cut}"));
        assert_eq!((parser.is_damaged(), parser.bill().unwrap().output.get()), (true, 9));
    }

    #[test]
    fn something_else_in_the_place_of_text_is_damage_and_not_silence() {
        for (protocol, json) in [
            (Protocol::Compatible, r#"{"choices":{"delta":{"content":"a"}}}"#),
            (Protocol::Compatible, r#"{"choices":["a"]}"#),
            (Protocol::Compatible, r#"{"choices":[{"delta":{"content":{"text":"a"}}}]}"#),
            (Protocol::Compatible, r#"{"choices":[{"delta":"a"}]}"#),
            (Protocol::Compatible, r#"{"choices":[{"message":["a"]}]}"#),
            (Protocol::Native, r#"{"output":"a"}"#),
            (Protocol::Native, r#"{"output":{"choices":[{"message":"a"}]}}"#),
            (Protocol::Native, r#"{"output":{"text":12.50}}"#),
            (Protocol::Native, r#"{"output":{"choices":[{"message":{"content":[{"text":1}]}}]}}"#),
        ] {
            let (parser, seen) = heard(protocol, &format!("data: {json}\n\n"));
            assert!(parser.is_damaged() && seen[0].kind == EventKind::Withheld, "{json}");
        }
        for json in
            [r#"{"choices":null}"#, r#"{"choices":[]}"#, r#"{"id":"x"}"#, r#"{"choices":[{}]}"#]
        {
            let (parser, _) = heard(Protocol::Compatible, &format!("data: {json}\n\n"));
            assert!(!parser.is_damaged(), "{json}");
        }
    }

    #[test]
    fn an_event_whose_data_are_not_marked_as_such_is_damage() {
        for stray in
            ["{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}", "ata: {}", "<html>", "data{}"]
        {
            let (parser, seen) =
                heard(Protocol::Compatible, &format!("id: 1\n{stray}\n\n{STOP}{BILL}"));
            assert!(parser.is_damaged() && seen[0].kind == EventKind::Withheld, "{stray}");
            assert_eq!(parser.bill().unwrap().output.get(), 9, "{stray}");
        }
        for known in
            [": keep-alive", "id:1\nevent:result\n:HTTP_STATUS/200", "retry: 5", "data", "id"]
        {
            let (parser, _) = heard(Protocol::Native, &format!("{known}\n\n"));
            assert!(!parser.is_damaged(), "{known}");
        }
    }

    #[test]
    fn of_two_errors_the_first_is_the_reason() {
        let event = |code: &str| format!("data: {{\"error\":{{\"code\":\"{code}\"}}}}\n\n");
        let stream = event("data_inspection_failed") + &event("internal_error");
        let (parser, _) = heard(Protocol::Compatible, &stream);
        assert_eq!(parser.failure().unwrap().fault.label(), "content_rejected");
    }
}
