//! The built-in tasks: the prompt tokens and the output of each.
//!
//! Forms follow the recorded answers: fenced JSON, HTML and LaTeX in `text`; boxes in pixels of the original in
//! `ocr_result` and on a scale of a thousand in `text`.

use serde_json::{Value, json};

use crate::engine::{Bounds, Reading, TextLine};
use crate::models::Model;
use crate::request::{Ask, Task};
use crate::sheet::{Sheet, segments_of};
use crate::usage::text_tokens;
use crate::{layout, reader};

/// Tokens of the extraction prompt around a schema, as measured on the vendor's sample.
const SCHEMA_PROMPT_TOKENS: u64 = 172;

/// Tokens of the extraction prompt without a schema; its text is known, its token count is a guess.
const PAIRS_PROMPT_TOKENS: u64 = 90;

/// Bytes of a schema taken for one token: names and punctuation are denser than prose.
const SCHEMA_BYTES_PER_TOKEN: u64 = 3;

/// One image that was read, and its original size.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) reading: Reading,
    /// Width before scaling.
    pub(crate) width: u32,
    /// Height before scaling.
    pub(crate) height: u32,
}

/// The output of a task.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) ocr_result: Option<Value>,
}

/// Text tokens of a request: its own or its task's prompt, and the chat template.
pub(crate) fn prompt_tokens(model: &Model, ask: &Ask) -> u64 {
    let own = if ask.prompt.is_empty() { None } else { Some(text_tokens(&ask.prompt)) };
    let tokens = match ask.task {
        None => own.unwrap_or(16),
        Some(task) => {
            let beside = own.filter(|_| model.reads_everything()).unwrap_or(0);
            task_tokens(task, ask) + beside
        }
    };
    tokens + model.template_tokens()
}

/// Tokens of a built-in prompt, counted with the vendor's own vocabulary.
fn task_tokens(task: Task, ask: &Ask) -> u64 {
    match (task, &ask.schema) {
        (Task::Text, _) => 16,
        (Task::Advanced, _) => 25,
        (Task::Formula, _) => 20,
        (Task::Document, _) => 46,
        (Task::Table, _) => 66,
        (Task::KeyInformation, None) => PAIRS_PROMPT_TOKENS,
        (Task::KeyInformation, Some(schema)) => {
            let bytes = json!(schema).to_string().len() as u64;
            SCHEMA_PROMPT_TOKENS + bytes.div_ceil(SCHEMA_BYTES_PER_TOKEN)
        }
    }
}

/// Writes the output of the task. Slow on a full page: run it on the blocking pool.
pub(crate) fn write(ask: &Ask, pages: &[Page]) -> Written {
    let readings = || pages.iter().map(|page| &page.reading);
    let text = match ask.task {
        None | Some(Task::Text) => joined_text(pages, "\n"),
        Some(Task::Advanced) => return advanced(pages),
        Some(Task::KeyInformation) => return key_information(ask, &Sheet::of(readings())),
        Some(Task::Table) => format!("```html\n{}```", layout::html(&Sheet::of(readings()))),
        Some(Task::Document) => format!("```latex\n{}\n```", layout::latex(readings())),
        Some(Task::Formula) => format!("$${}$$", joined_text(pages, " ").replace('\n', " ")),
    };
    Written { text, ocr_result: None }
}

fn joined_text(pages: &[Page], between: &str) -> String {
    let texts: Vec<String> = pages.iter().map(|page| page.reading.text()).collect();
    texts.join(between)
}

fn key_information(ask: &Ask, sheet: &Sheet) -> Written {
    let found = match &ask.schema {
        Some(schema) => reader::fields(sheet, schema),
        None => reader::pairs(sheet),
    };
    let text = format!("```json\n{found:#}\n```");
    Written { text, ocr_result: Some(json!({ "kv_result": found })) }
}

fn advanced(pages: &[Page]) -> Written {
    let mut words_info = Vec::new();
    let mut list = Vec::new();
    for page in pages {
        for line in page.reading.lines.iter().flat_map(segments_of) {
            let Some(bounds) = line.bounds() else { continue };
            words_info.push(page.word_info(&line, bounds));
            let rectangle = json!(page.rectangle_in_thousandths(bounds));
            list.push(format!(
                "\t{{\"rotate_rect\": {rectangle}, \"text\": {}}}",
                json!(line.text())
            ));
        }
    }
    let text = format!("```json\n[\n{}\n]\n```", list.join(",\n"));
    Written { text, ocr_result: Some(json!({ "words_info": words_info })) }
}

impl Page {
    /// One line with its corners, clockwise from the top left, and its rotated rectangle. The service
    /// gives upright text an angle of 90 and swaps width and height to match.
    fn word_info(&self, line: &TextLine, bounds: Bounds) -> Value {
        let Bounds { left, top, right, bottom } = self.in_original(bounds);
        let middle = |one: u32, other: u32| u32::midpoint(one, other);
        json!({
            "location": [left, top, right, top, right, bottom, left, bottom],
            "rotate_rect": [middle(left, right), middle(top, bottom), bottom - top, right - left, 90],
            "text": line.text()
        })
    }

    fn rectangle_in_thousandths(&self, bounds: Bounds) -> [u32; 5] {
        let across = |pixels: u32| scaled(pixels, 1000, self.reading.width).min(999);
        let down = |pixels: u32| scaled(pixels, 1000, self.reading.height).min(999);
        [
            across(u32::midpoint(bounds.left, bounds.right)),
            down(u32::midpoint(bounds.top, bounds.bottom)),
            down(bounds.height()),
            across(bounds.width()),
            90,
        ]
    }

    fn in_original(&self, bounds: Bounds) -> Bounds {
        let across = |pixels: u32| scaled(pixels, self.width, self.reading.width).min(self.width);
        let down = |pixels: u32| scaled(pixels, self.height, self.reading.height).min(self.height);
        Bounds {
            left: across(bounds.left),
            top: down(bounds.top),
            right: across(bounds.right),
            bottom: down(bounds.bottom),
        }
    }
}

/// `value` on another scale, rounded half up.
fn scaled(value: u32, to: u32, from: u32) -> u32 {
    let (value, to, from) = (u64::from(value), u64::from(to), u64::from(from.max(1)));
    u32::try_from((value * to + from / 2) / from).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::typed;

    fn ask(task: &str, schema: &Value) -> Ask {
        let mut ask = Ask::default();
        ask.take_options(&json!({"task": task, "task_config": {"result_schema": schema}}));
        assert_eq!(ask.problem, None);
        ask
    }

    fn page(text: &str) -> Page {
        Page { reading: typed(text), width: 2000, height: 500 }
    }

    fn tokens(model: &str, ask: &Ask) -> u64 {
        prompt_tokens(Model::named(model).unwrap(), ask)
    }

    #[test]
    fn built_in_prompts_cost_what_the_vendors_samples_say() {
        let old = "qwen-vl-ocr-2025-08-28";
        for (task, documented) in [
            ("text_recognition", 35),
            ("multi_lan", 35),
            ("formula_recognition", 39),
            ("table_parsing", 85),
        ] {
            assert_eq!(tokens(old, &ask(task, &Value::Null)), documented, "{task}");
        }
        let advanced = ask("advanced_recognition", &Value::Null);
        assert_eq!(tokens("qwen-vl-ocr-latest", &advanced), 33);
        assert_eq!(tokens("qwen-vl-ocr-latest", &Ask::default()), 24);
    }

    #[test]
    fn a_prompt_never_costs_more_than_its_bytes_and_a_template() {
        for prompt in
            ["", "a", "Read all the text in the image.", "读出所有文字", &"x".repeat(5000)]
        {
            let ask = Ask { prompt: prompt.to_owned(), ..Ask::default() };
            for model in &crate::models::MODELS {
                assert!(prompt_tokens(model, &ask) <= prompt.len() as u64 + 64);
            }
        }
    }

    #[test]
    fn a_schema_never_costs_more_than_its_pretty_bytes_and_seven_hundred() {
        for schema in [json!({}), json!({"发票": {"发票代码": "提取图中的发票代码"}})]
        {
            let pretty = format!("{schema:#}").len() as u64;
            assert!(
                tokens("qwen-vl-ocr", &ask("key_information_extraction", &schema)) <= pretty + 700
            );
        }
    }

    #[test]
    fn a_task_pushes_the_prompt_aside_except_on_the_newest_model() {
        let ask = Ask { prompt: "x".repeat(400), ..ask("table_parsing", &Value::Null) };
        assert_eq!(tokens("qwen-vl-ocr", &ask), 66 + 8);
        assert_eq!(tokens("qwen3.5-ocr", &ask), 66 + 8 + 100);
    }

    #[test]
    fn boxes_are_in_pixels_of_the_original_and_in_thousandths() {
        let written = advanced(&[page("TOTAL 9.00")]);
        let result = written.ocr_result.unwrap();
        // Ten characters of ten by sixteen pixels, on a page read at 1000x1000 whose original is 2000x500.
        assert_eq!(result["words_info"][0]["location"], json!([0, 0, 200, 0, 200, 8, 0, 8]));
        assert_eq!(result["words_info"][0]["rotate_rect"], json!([100, 4, 8, 200, 90]));
        assert_eq!(
            written.text,
            "```json\n[\n\t{\"rotate_rect\": [50,8,16,100,90], \"text\": \"TOTAL 9.00\"}\n]\n```"
        );
    }

    #[test]
    fn extracted_fields_come_twice_in_the_same_form() {
        let ask = ask("key_information_extraction", &json!({"total": "", "date": ""}));
        let written = write(&ask, &[page("Total 9.00")]);
        let fenced = written.text.strip_prefix("```json\n").unwrap().strip_suffix("\n```").unwrap();
        let parsed: Value = serde_json::from_str(fenced).unwrap();
        assert_eq!(parsed, json!({"total": "9.00", "date": null}));
        assert_eq!(written.ocr_result.unwrap()["kv_result"], parsed);
    }
}
