//! The members that each place of a request may have.
//!
//! A request is sent as it was written, so a member that the gateway does not read reaches a server that may obey it.
//! Each place therefore has a table of its members, and a member outside of the table is refused.
//!
//! At the top of a body and in `parameters`, where vendors add options most often, the operator may let unknown
//! members pass. A `null` passes there in any case, because it means that there is no value. [`COSTLY`] members stay
//! refused even then, and so do names that some readers take for a known one: fastjson ignores case, `_`, `-` and a
//! leading `is`; other libraries fold Unicode or stop at a NUL.
//!
//! docs/drop-in.md has the same tables. A test below compares the two, and `tests/it/dropin/members.rs` sends
//! every member of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::member::{MemberFault, Object};
use super::outline::{Outline, OutlineNode};
use crate::dashscope::settings::UnknownMembers;

/// The values that a member may have.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Any; the reader of the protocol checks it.
    Read,
    /// A number, a text, `true`, `false`, `null`, or a list of these.
    Plain,
    /// Any JSON. The names in it are the caller's own.
    AnyJson,
    /// One of these spellings.
    Only(&'static [&'static str]),
}

/// Values that switch nothing on. `1` is not among them, because lenient readers take it for true. Neither is `{}`,
/// which switches some options on with their defaults.
const OFF: Rule = Rule::Only(&["null", "false", "[]"]);

/// The members that one place may have.
#[derive(Debug)]
pub(super) struct MemberTable(&'static [(Rule, &'static [&'static str])]);

/// Sampling options, answer format options, and identifiers of the caller. None of them adds input tokens, and
/// `max_tokens` bounds the answer in any case (Model Studio, "Qwen-OCR API reference"; "Create chat completion" of
/// OpenAI).
const HARMLESS: &[&str] = &[
    "frequency_penalty",
    "incremental_output",
    "logprobs",
    "min_p",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "repetition_penalty",
    "safety_identifier",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
];

/// Options with free content: schemas, labels, tokens, names of tools. Tools themselves are refused, so `tool_choice`
/// has no effect.
const FREE: &[&str] =
    &["function_call", "logit_bias", "metadata", "response_format", "tool_choice"];

const TEXT_ONLY: Rule = Rule::Only(&["null", "[\"text\"]"]);

/// Other media, by their names in either protocol. Clients that write every field of a type send them as `null`.
const OTHER_MEDIA: &[&str] = &["annotations", "audio", "file", "input_audio", "video", "video_url"];

/// The top of a body of the compatible protocol.
pub(super) const COMPATIBLE_ROOT: MemberTable = MemberTable(&[
    (
        Rule::Read,
        &[
            "max_completion_tokens",
            "max_tokens",
            "messages",
            "model",
            "n",
            "ocr_options",
            "stream",
            "stream_options",
        ],
    ),
    (Rule::Plain, HARMLESS),
    (Rule::AnyJson, FREE),
    (TEXT_ONLY, &["modalities"]),
]);

/// `stream_options` of the compatible protocol.
pub(super) const STREAM_OPTIONS: MemberTable =
    MemberTable(&[(Rule::Read, &["include_usage"]), (Rule::Plain, &["include_obfuscation"])]);

/// A message of either protocol, including an earlier answer that the caller sends back. OpenAI's SDKs add the content
/// that they parsed as `parsed`, and `LiteLLM` adds `provider_specific_fields`.
pub(super) const MESSAGE: MemberTable = MemberTable(&[
    (Rule::Read, &["content", "role"]),
    (Rule::Plain, &["name", "reasoning_content", "refusal"]),
    (Rule::AnyJson, &["parsed"]),
    (OFF, &["annotations", "audio", "function_call", "provider_specific_fields", "tool_calls"]),
]);

/// An item of content of the compatible protocol.
pub(super) const COMPATIBLE_ITEM: MemberTable = MemberTable(&[
    (Rule::Read, &["enable_rotate", "image_url", "max_pixels", "min_pixels", "text", "type"]),
    (Rule::Plain, &["id", "index"]),
    (OFF, OTHER_MEDIA),
]);

/// `image_url` of an item. Model Studio has no `detail`. Clients of OpenAI send it, and the pixels that are written
/// beside it bound the image in any case.
pub(super) const IMAGE_URL: MemberTable = MemberTable(&[
    (Rule::Read, &["max_pixels", "min_pixels", "url"]),
    (Rule::Only(&["null", "\"auto\"", "\"low\"", "\"high\""]), &["detail"]),
]);

/// The top of a body of the native protocol. `stream` has no effect there, because a header selects streaming. Callers
/// used to the other protocol send it anyway.
pub(super) const NATIVE_ROOT: MemberTable =
    MemberTable(&[(Rule::Read, &["input", "model", "parameters"]), (Rule::Plain, &["stream"])]);

/// `input` of the native protocol.
pub(super) const INPUT: MemberTable = MemberTable(&[(Rule::Read, &["messages"])]);

/// `parameters` of the native protocol.
pub(super) const PARAMETERS: MemberTable = MemberTable(&[
    (Rule::Read, &["max_tokens", "n", "ocr_options"]),
    (Rule::Plain, HARMLESS),
    (Rule::Plain, &["result_format", "stream"]),
    (Rule::AnyJson, FREE),
    (TEXT_ONLY, &["modalities"]),
]);

/// An item of content of the native protocol. `processed_text` and `ocr_result` are parts of an earlier answer that the
/// caller sends back.
pub(super) const NATIVE_ITEM: MemberTable = MemberTable(&[
    (Rule::Read, &["enable_rotate", "image", "max_pixels", "min_pixels", "text", "type"]),
    (Rule::Plain, &["processed_text"]),
    (Rule::AnyJson, &["ocr_result"]),
    (OFF, OTHER_MEDIA),
]);

/// `ocr_options` of either protocol.
pub(super) const OCR_OPTIONS: MemberTable =
    MemberTable(&[(Rule::Read, &["task_config"]), (Rule::Plain, &["task"])]);

/// `task_config` of `ocr_options`.
pub(super) const TASK_CONFIG: MemberTable = MemberTable(&[(Rule::AnyJson, &["result_schema"])]);

/// Members that can make a call cost more than its bound, at DashScope or at another service with the same models: more
/// tokens of answer or thought, several answers, another size of an image, other media, search results, tools, other
/// templates. A limit in a place where it is not read is one of them, too. None is documented for the OCR models.
const COSTLY: &[&str] = &[
    "asr_options",
    "attachments",
    "audio",
    "audio_url",
    "audio_urls",
    "background",
    "base_image_url",
    "beam_width",
    "best_of",
    "cache_control",
    "candidate_count",
    "chat_template",
    "chat_template_kwargs",
    "code_interpreter",
    "context",
    "conversation",
    "detail",
    "do_resize",
    "doc_url",
    "document",
    "document_url",
    "documents",
    "early_stopping",
    "echo",
    "embeds",
    "enable_citation",
    "enable_code_interpreter",
    "enable_omni_output_audio_url",
    "enable_reasoning",
    "enable_rotate",
    "enable_search",
    "enable_source",
    "enable_thinking",
    "extra_body",
    "extra_headers",
    "extra_query",
    "file",
    "file_data",
    "file_id",
    "file_ids",
    "file_url",
    "file_urls",
    "files",
    "first_frame_url",
    "forced_search",
    "fps",
    "frames",
    "functions",
    "generate_cfg",
    "generation_config",
    "generation_kwargs",
    "guardrails",
    "has_thoughts",
    "height",
    "high_resolution",
    "history",
    "ignore_eos",
    "image",
    "image_data",
    "image_embeds",
    "image_file",
    "image_pil",
    "image_size",
    "image_tokens",
    "image_url",
    "image_urls",
    "images",
    "images_kwargs",
    "include_reasoning",
    "input",
    "input_audio",
    "input_file",
    "input_image",
    "inputs",
    "instructions",
    "knowledge_base",
    "kv_transfer_params",
    "last_frame_url",
    "length_penalty",
    "logits_processors",
    "longest_edge",
    "lora_request",
    "mask_image_url",
    "max_answer_tokens",
    "max_completion_length",
    "max_completion_tokens",
    "max_context_length",
    "max_dynamic_patch",
    "max_frames",
    "max_gen_toks",
    "max_image_size",
    "max_image_tokens",
    "max_input_tokens",
    "max_len",
    "max_length",
    "max_model_len",
    "max_new_tokens",
    "max_output_length",
    "max_output_tokens",
    "max_patches",
    "max_pixels",
    "max_prompt_tokens",
    "max_reasoning_tokens",
    "max_response_tokens",
    "max_thinking_tokens",
    "max_tiles",
    "max_time",
    "max_tokens",
    "max_tokens_to_sample",
    "mcp_servers",
    "media_io_kwargs",
    "message",
    "messages",
    "min_completion_tokens",
    "min_dynamic_patch",
    "min_frames",
    "min_image_tokens",
    "min_len",
    "min_length",
    "min_new_tokens",
    "min_output_tokens",
    "min_pixels",
    "min_tokens",
    "mm_processor_kwargs",
    "model",
    "models",
    "moderation",
    "multi_modal_data",
    "n",
    "n_predict",
    "nframes",
    "num_beam_groups",
    "num_beams",
    "num_completions",
    "num_ctx",
    "num_generations",
    "num_predict",
    "num_responses",
    "num_return_sequences",
    "ocr_options",
    "options",
    "parameters",
    "patch_size",
    "pdf_url",
    "pixel_values",
    "plugins",
    "prediction",
    "prefill",
    "preserve_thinking",
    "previous_response_id",
    "processor_kwargs",
    "prompt",
    "prompt_cache_breakpoint",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prompt_embeds",
    "rag_options",
    "reasoning",
    "reasoning_budget",
    "reasoning_config",
    "reasoning_effort",
    "reasoning_tokens",
    "ref_image_url",
    "ref_images_url",
    "repetition_detection",
    "resized_height",
    "resized_width",
    "resolution",
    "result_schema",
    "retrieval",
    "sampling_parameters",
    "sampling_params",
    "search_options",
    "service_tier",
    "shortest_edge",
    "size",
    "size_factor",
    "skill",
    "skills",
    "source",
    "speculative_config",
    "store",
    "stream_options",
    "suffix",
    "system",
    "system_prompt",
    "task_config",
    "template_kwargs",
    "text_config",
    "thinking",
    "thinking_budget",
    "thinking_config",
    "thinking_mode",
    "thinking_tokens",
    "thread_id",
    "tokenizer_kwargs",
    "tool_config",
    "tool_resources",
    "tools",
    "total_pixels",
    "translation_options",
    "truncate_prompt_tokens",
    "use_beam_search",
    "use_cache",
    "video",
    "video_embeds",
    "video_url",
    "video_urls",
    "videos",
    "videos_kwargs",
    "vl_enable_image_hw_output",
    "vl_high_resolution_images",
    "voice",
    "web_search",
    "web_search_config",
    "web_search_options",
    "width",
];

/// Length of the longest known name with a leading `is`. A longer name is not a known one.
const LONGEST: usize = 40;

/// The known names of the places that the operator may open, folded as lenient readers do.
static FOLDED: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let tables = [&COMPATIBLE_ROOT, &NATIVE_ROOT, &PARAMETERS];
    let known = COSTLY.iter().copied().chain(tables.into_iter().flat_map(MemberTable::names));
    known.filter_map(|name| Some((folded(name)?, name))).collect()
});

impl MemberTable {
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.0.iter().flat_map(|(_, names)| names.iter().copied())
    }

    fn rule(&self, name: &str) -> Option<Rule> {
        self.0.iter().find_map(|(rule, names)| names.contains(&name).then_some(*rule))
    }

    /// Refuses members that the place may not have.
    ///
    /// # Errors
    ///
    /// [`MemberFault`] names the first such member and those that the place may have.
    pub(super) fn check(&self, object: &Object<'_, '_>) -> Result<(), MemberFault> {
        self.check_each(object, |name, _| {
            let mut known: Vec<_> = self.names().collect();
            known.sort_unstable();
            let why = format!("is not known here. Known are {}", known.join(", "));
            Err(object.wrong(name, why))
        })
    }

    /// Refuses members as [`check`](Self::check) does, except that `unknown` decides about unknown ones.
    ///
    /// # Errors
    ///
    /// [`MemberFault`] names the first refused member.
    pub(super) fn check_open(
        &self,
        object: &Object<'_, '_>,
        unknown: UnknownMembers,
    ) -> Result<(), MemberFault> {
        self.check_each(object, |name, value| check_unknown(object, name, value, unknown))
    }

    fn check_each(
        &self,
        object: &Object<'_, '_>,
        unlisted: impl Fn(&str, OutlineNode) -> Result<(), MemberFault>,
    ) -> Result<(), MemberFault> {
        for (name, value) in object.members() {
            match self.rule(name) {
                Some(rule) => rule.check(object, name, value)?,
                None if is_printable(name) => unlisted(name, value)?,
                None => return Err(object.wrong(name, "must be a name of printable ASCII")),
            }
        }
        Ok(())
    }
}

impl Rule {
    fn check(
        self,
        object: &Object<'_, '_>,
        name: &str,
        value: OutlineNode,
    ) -> Result<(), MemberFault> {
        let outline = object.outline();
        match self {
            Self::Plain if !is_plain(outline, value) => {
                let why = "must be a number, a text, true, false, null, or a list of these";
                Err(object.wrong(name, why))
            }
            Self::Only(values) if !is_one_of(values, outline.json(value)) => {
                let values = values.join(" or ");
                let why = format!("must be {values} here: what another value costs is not known");
                Err(object.wrong(name, why))
            }
            Self::Read | Self::AnyJson | Self::Plain | Self::Only(_) => Ok(()),
        }
    }
}

/// Whether `json` is one of `values`. Lists in `values` have one element at most, and spaces within the brackets do not
/// count: writers that indent put line breaks there.
fn is_one_of(values: &[&str], json: &str) -> bool {
    let element =
        |list| within_brackets(list).map(|inside| inside.trim_matches([' ', '\t', '\n', '\r']));
    let is_list = |value| element(value).is_some() && element(value) == element(json);
    values.iter().any(|&value| value == json || is_list(value))
}

fn within_brackets(list: &str) -> Option<&str> {
    list.strip_prefix('[')?.strip_suffix(']')
}

fn check_unknown(
    object: &Object<'_, '_>,
    name: &str,
    value: OutlineNode,
    unknown: UnknownMembers,
) -> Result<(), MemberFault> {
    match meant(name) {
        Some(meant) if meant != name => {
            let why =
                format!("is spelt otherwise than `{meant}`, which some servers take for the same");
            return Err(object.wrong(name, why));
        }
        Some(meant) if COSTLY.contains(&meant) => {
            return OFF.check(object, name, value).map_err(|_| {
                let why = "may make a call cost more than can be told from it, or belongs to another \
                           place. It passes here only as null, false or []";
                object.wrong(name, why)
            });
        }
        _ => {}
    }
    // Writers that send every field of a type write `null` for those without a value. Even a costly member may be
    // `null`.
    if object.outline().is_null(value) {
        return Ok(());
    }
    if unknown == UnknownMembers::Refuse {
        let why = "is not known here, so nobody can tell what it costs. Leave it out, or have the \
                   operator set upstream.unknown_members to \"pass\"";
        return Err(object.wrong(name, why));
    }
    check_below(object, name, value)
}

/// Refuses an unknown member if it contains a name that would be refused next to it.
fn check_below(object: &Object<'_, '_>, name: &str, value: OutlineNode) -> Result<(), MemberFault> {
    let outline = object.outline();
    for below in outline.descendants(value).filter_map(|member| outline.name(member)) {
        if !is_printable(below) {
            return Err(object.wrong(name, "holds a name that is not printable ASCII"));
        }
        if let Some(meant) = meant(below).filter(|meant| COSTLY.contains(meant)) {
            let why = format!(
                "holds `{meant}` or a name like it, which may make a call cost more than can be told \
                 from it"
            );
            return Err(object.wrong(name, why));
        }
    }
    Ok(())
}

fn is_plain(outline: &Outline<'_>, value: OutlineNode) -> bool {
    let is_scalar = |value| !outline.is_object(value) && !outline.is_array(value);
    is_scalar(value) || outline.is_array(value) && outline.elements(value).all(is_scalar)
}

/// Whether a name is one or more characters of printable ASCII. Other characters are folded or skipped by some readers,
/// or end the name.
fn is_printable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The known name that a lenient reader could read `name` as.
fn meant(name: &str) -> Option<&'static str> {
    let folded = folded(name)?;
    let beside = || FOLDED.get(folded.strip_prefix("is")?);
    FOLDED.get(&folded).or_else(beside).copied()
}

/// A name as the most lenient reader sees it: in lower case, letters and digits only. None if it is longer than every
/// known name.
fn folded(name: &str) -> Option<String> {
    let letters = name.chars().filter(char::is_ascii_alphanumeric).take(LONGEST + 1);
    let folded: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    (folded.len() <= LONGEST).then_some(folded)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const PAGE: &str = include_str!("../../docs/drop-in.md");

    /// The tables of both places in the document.
    const COMPATIBLE: [(&str, &MemberTable); 7] = [
        ("/", &COMPATIBLE_ROOT),
        ("/stream_options", &STREAM_OPTIONS),
        ("/ocr_options", &OCR_OPTIONS),
        ("/ocr_options/task_config", &TASK_CONFIG),
        ("/messages/*", &MESSAGE),
        ("/messages/*/content/*", &COMPATIBLE_ITEM),
        ("/messages/*/content/*/image_url", &IMAGE_URL),
    ];
    const NATIVE: [(&str, &MemberTable); 7] = [
        ("/", &NATIVE_ROOT),
        ("/input", &INPUT),
        ("/input/messages/*", &MESSAGE),
        ("/input/messages/*/content/*", &NATIVE_ITEM),
        ("/parameters", &PARAMETERS),
        ("/parameters/ocr_options", &OCR_OPTIONS),
        ("/parameters/ocr_options/task_config", &TASK_CONFIG),
    ];

    type Table = BTreeMap<(String, String), BTreeSet<String>>;

    fn quoted(text: &str) -> impl Iterator<Item = String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned)
    }

    /// The members by place and verdict, as the document names them.
    fn of_page(text: &str) -> Table {
        let mut table = Table::new();
        for line in text.lines().filter(|line| line.starts_with("| `/")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let key = (quoted(cells[1]).next().unwrap(), cells[2].to_owned());
            table.entry(key).or_default().extend(quoted(cells[3]));
        }
        table
    }

    fn of_code(places: &[(&str, &MemberTable)]) -> Table {
        let mut table = Table::new();
        for (place, members) in places {
            for (rule, names) in members.0 {
                let verdict = match rule {
                    Rule::Read => "read".to_owned(),
                    Rule::Plain => "passes".to_owned(),
                    Rule::AnyJson => "any JSON".to_owned(),
                    Rule::Only(values) => {
                        let values: Vec<_> =
                            values.iter().map(|json| format!("`{json}`")).collect();
                        format!("only {}", values.join(" "))
                    }
                };
                let named = names.iter().map(|&name| name.to_owned());
                table.entry(((*place).to_owned(), verdict)).or_default().extend(named);
            }
        }
        table
    }

    #[test]
    fn the_page_lists_every_member_with_its_verdict() {
        let section = PAGE.split("\n## Members").nth(1).unwrap().split("\n## ").next().unwrap();
        let (compatible, native) = section.split_once("DashScope's own:").unwrap();
        assert_eq!(of_page(compatible), of_code(&COMPATIBLE));
        assert_eq!(of_page(native), of_code(&NATIVE));
        let list = section.split("<!-- Costly members. -->").nth(1).unwrap().trim_start();
        let listed: Vec<_> = quoted(list.split("\n\n").next().unwrap()).collect();
        assert_eq!(listed, COSTLY);
    }

    #[test]
    fn a_name_is_folded_as_the_most_lenient_reader_does() {
        for name in ["maxPixels", "MAX_PIXELS", "max-pixels", "is max.pixels", "isMaxPixels "] {
            assert_eq!(meant(name), Some("max_pixels"), "{name}");
        }
        for name in ["max_pixel", "x_max_pixels", "is", "issue", "", "a".repeat(1_000).as_str()] {
            assert_eq!(meant(name), None, "{name}");
        }
        assert!(COSTLY.iter().all(|name| folded(name).is_some()));
    }

    #[test]
    fn a_list_is_the_same_however_it_is_indented() {
        let Rule::Only(off) = OFF else { unreachable!() };
        for json in ["[]", "[ ]", "[\n  ]", "null", "false"] {
            assert!(is_one_of(off, json), "{json}");
        }
        assert!(is_one_of(&["[\"text\"]"], "[\n  \"text\"\r\n]"));
        for json in ["[\"te xt\"]", "[\"text\", \"text\"]", "[[\"text\"]]", "\"text\"", "[]"] {
            assert!(!is_one_of(&["[\"text\"]"], json), "{json}");
        }
        assert!(["[1]", "[[]]", "{}", "0", "\"\""].iter().all(|json| !is_one_of(off, json)));
    }

    #[test]
    fn a_name_is_printable_ascii() {
        for name in ["", "\u{0}a", "a\u{7f}", "\u{e9}", "a\nb", "\u{212a}"] {
            assert!(!is_printable(name), "{name:?}");
        }
        assert!(is_printable("a b~") && is_printable("$schema"));
    }
}
