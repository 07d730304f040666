//! All features of DashScope's OCR through `/ocr`: models, tasks, Markdown, and orientation.

use std::collections::HashMap;
use std::num::NonZeroU64;

use dashscope_emulator::EngineChoice;
use ocr_gateway::settings::Settings;
use ocr_gateway::units::Pixels;
use serde_json::{Value, json};

use crate::harness::{Answer, SCRIPTED_TEXT, TestGateway, fixture};

/// The service with an emulator that reads `text`.
async fn reading(text: &str) -> TestGateway {
    let engine = EngineChoice::Scripted(text.to_owned());
    TestGateway::with(|setup| setup.emulator.engine = engine).await
}

#[tokio::test]
async fn every_model_is_called_within_its_own_limits_and_billed_as_estimated() {
    let gateway = TestGateway::start().await;
    let settings = Settings::load_with(None, HashMap::new()).unwrap();
    // Its number of cells of 28 pixels differs from that of 32.
    let picture = fixture("hello.png");
    for (model, figures) in &settings.models {
        let tasks: &[&str] =
            if figures.builtin_tasks { &["", "&task=table_parsing"] } else { &[""] };
        for task in tasks {
            let query = format!("model={model}{task}");
            let estimate = gateway.upload(&format!("/estimate?{query}"), picture.clone()).await;
            let answer = gateway.upload(&format!("/ocr?{query}"), picture.clone()).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.text);
            let tokens = &answer.json["pages"][0]["image_tokens"];
            assert_eq!(tokens["estimated"], tokens["billed"], "{query}");
            assert_eq!(estimate.json["pages"][0]["image_tokens"], tokens["billed"], "{query}");
            let input = answer.json["usage"]["input_tokens"].as_u64().unwrap();
            let bound = &estimate.json["bound"];
            let most =
                bound["image_tokens"].as_u64().unwrap() + bound["text_tokens"].as_u64().unwrap();
            assert!(input <= most, "{query}: {input} of {most}");

            let calls = gateway.upstream().calls();
            let call = calls.last().unwrap();
            assert_eq!(call.model.as_ref(), Some(model));
            assert_eq!(call.max_tokens, Some(figures.max_tokens.get()));
            let image = &call.images[0];
            let sent = [image.min_pixels_beside, image.max_pixels_beside].map(Option::unwrap);
            let own = [figures.min_pixels, figures.default_max_pixels].map(Pixels::get);
            assert_eq!(sent.map(i64::unsigned_abs), own, "{query}");
        }
    }
    assert_eq!(gateway.count("token_estimate_mismatch_total", &[]).await, 0);
}

#[tokio::test]
async fn a_prompt_is_passed_on_and_a_language_chooses_the_task_that_reads_it() {
    let gateway = TestGateway::start().await;
    for (options, prompt, task) in [
        ("", false, None),
        ("?prompt=read", true, None),
        ("?language=en&language=zh-Hans", false, None),
        ("?language=en&language=de-CH", false, Some("multi_lan")),
        ("?language=de&prompt=lies", true, None),
        ("?language=de&task=table_parsing", false, Some("table_parsing")),
    ] {
        let answer = gateway.upload(&format!("/ocr{options}"), fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{options}");
        let call = gateway.upstream().calls().pop().unwrap();
        assert_eq!((call.prompt, call.task.as_deref()), (prompt, task), "{options}");
    }
}

#[tokio::test]
async fn a_model_without_tasks_says_so_and_reads_text_and_markdown_all_the_same() {
    let gateway = TestGateway::start().await;
    let with = async |options: &str| {
        let query = format!("/ocr?model=qwen-vl-ocr-2024-10-28{options}");
        gateway.upload(&query, fixture("hello.png")).await
    };
    for options in ["&task=key_information_extraction", "&language=de", "&detail=lines"] {
        let answer = with(options).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"), "{options}");
        assert_eq!(answer.json["errors"][0]["pointer"], "/model");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
    for options in ["", "&format=markdown", "&prompt=read", "&rotate=auto"] {
        assert_eq!(with(options).await.status, 200, "{options}");
    }
}

#[tokio::test]
async fn the_models_fence_is_no_part_of_the_text() {
    let gateway = TestGateway::start().await;
    for (task, start, end) in [
        ("table_parsing", "<table>", "</table>"),
        ("document_parsing", "\\documentclass", "\\end{document}"),
        ("formula_recognition", "$$", "$$"),
        ("key_information_extraction", "{", "}"),
    ] {
        let query = format!("/ocr?task={task}");
        let answer = gateway.upload(&query, fixture("hello.png")).await;
        let text = answer.json["text"].as_str().unwrap();
        assert!(text.starts_with(start) && text.ends_with(end), "{task}: {text}");
        assert_eq!(answer.json["pages"][0]["warnings"], json!([]), "{task}");
        let plain = gateway.upload(&format!("{query}&format=text"), fixture("hello.png")).await;
        assert_eq!(plain.text, text, "{task}");
    }
}

#[tokio::test]
async fn key_information_without_a_schema_is_all_pairs_as_json() {
    let gateway = reading("Invoice No: 4711\nTotal: 9.00").await;
    let query = "/ocr?task=key_information_extraction";
    let answer = gateway.upload(query, fixture("hello.png")).await;
    let pairs: Value = serde_json::from_str(answer.json["text"].as_str().unwrap()).unwrap();
    assert!(pairs.as_object().unwrap().values().any(|value| value == "4711"), "{pairs}");
    let call = &gateway.upstream().calls()[0];
    assert_eq!(call.task.as_deref(), Some("key_information_extraction"));
}

#[tokio::test]
async fn the_text_of_advanced_recognition_is_what_its_lines_say() {
    let gateway = reading("one\ntwo").await;
    let answer = gateway.upload("/ocr?task=advanced_recognition", fixture("hello.png")).await;
    assert_eq!(
        (&answer.json["text"], &answer.json["pages"][0]["lines"]),
        (&json!("one\ntwo"), &Value::Null)
    );
}

// Markdown.

#[tokio::test]
async fn markdown_is_asked_for_by_a_prompt_of_the_gateways_own_that_the_estimate_counts() {
    let gateway = TestGateway::start().await;
    for options in ["", "&language=de"] {
        let query = format!("format=markdown{options}");
        let estimate = gateway.upload(&format!("/estimate?{query}"), fixture("hello.png")).await;
        let answer = gateway.upload(&format!("/ocr?{query}"), fixture("hello.png")).await;
        assert_eq!(answer.text, SCRIPTED_TEXT);
        assert_eq!(answer.header("content-type"), "text/markdown; charset=utf-8");
        let input: u64 = answer.header("ocr-tokens-input").parse().unwrap();
        let image: u64 = answer.header("ocr-tokens-image").parse().unwrap();
        assert!(input - image <= estimate.json["bound"]["text_tokens"].as_u64().unwrap());
        let call = gateway.upstream().calls().pop().unwrap();
        assert_eq!((call.prompt, call.task), (true, None), "{options}");
    }
}

#[tokio::test]
async fn markdown_carries_what_each_task_writes() {
    let gateway = reading("E = mc^2").await;
    for (options, start, end) in [
        ("task=text_recognition", "E = mc^2", "E = mc^2"),
        ("prompt=read", "E = mc^2", "E = mc^2"),
        ("task=table_parsing", "<table>", "</table>"),
        ("task=formula_recognition", "$$E", "$$"),
        ("task=document_parsing", "```latex\n\\documentclass", "\\end{document}\n```"),
        ("task=key_information_extraction", "```json\n{", "}\n```"),
    ] {
        let query = format!("/ocr?{options}&format=markdown");
        let answer = gateway.upload(&query, fixture("hello.png")).await;
        assert!(answer.text.starts_with(start) && answer.text.ends_with(end), "{}", answer.text);
    }
}

#[tokio::test]
async fn markdown_is_given_to_who_accepts_it_and_refused_for_lines() {
    let gateway = TestGateway::start().await;
    let accepting = async |path: &str| {
        let request = gateway.post(path).header("accept", "text/markdown, application/json;q=0.5");
        Answer::of(request.body(fixture("hello.png"))).await
    };
    let answer = accepting("/ocr").await;
    assert!(answer.header("content-type").starts_with("text/markdown"));
    assert!(gateway.upstream().calls()[0].prompt);
    gateway.upstream().clear_calls();
    for answer in [
        accepting("/ocr?detail=lines").await,
        gateway.upload("/ocr?detail=lines&format=markdown", fixture("hello.png")).await,
        gateway.upload("/estimate?detail=lines&format=markdown", fixture("hello.png")).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"));
        assert_eq!(answer.json["errors"][0]["pointer"], "/format");
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

// Orientation.

#[tokio::test]
async fn rotate_off_reads_the_pixels_as_they_are_stored() {
    let gateway = TestGateway::start().await;
    for (options, width, height) in
        [("", 480, 160), ("&rotate=exif", 480, 160), ("&rotate=off", 160, 480)]
    {
        let query = format!("detail=lines{options}");
        let estimate = gateway.upload(&format!("/estimate?{query}"), fixture("sideways.jpg")).await;
        let answer = gateway.upload(&format!("/ocr?{query}"), fixture("sideways.jpg")).await;
        let seen = gateway.upstream().calls().pop().unwrap().images.remove(0);
        assert_eq!((seen.width, seen.height), (Some(width), Some(height)), "{query}");
        for page in [&estimate.json["pages"][0], &answer.json["pages"][0]] {
            assert_eq!(
                (&page["width"], &page["height"]),
                (&json!(width), &json!(height)),
                "{query}"
            );
        }
        let page = &answer.json["pages"][0];
        assert_eq!(page["image_tokens"]["estimated"], page["image_tokens"]["billed"], "{query}");
        assert_eq!(page["warnings"] == json!([]), options == "&rotate=off", "{query}");
        assert_eq!(seen.bytes, fixture("sideways.jpg").len());
    }
}

#[tokio::test]
async fn rotate_off_refuses_a_picture_that_its_structure_turns() {
    let heic = fixture("one-size/heic-turned-48x64.heic");
    let gateway = TestGateway::start().await;
    let estimate = gateway.upload("/estimate", heic.clone()).await;
    assert_eq!(estimate.json["pages"][0]["width"], 48);
    for route in ["/estimate?rotate=off", "/ocr?rotate=off"] {
        let answer = gateway.upload(route, heic.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (422, "orientation_fixed"));
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn rotate_auto_goes_by_the_native_protocol_and_is_bounded_by_the_cap() {
    let cap = Pixels::new(1_048_576);
    let gateway = TestGateway::with(|setup| setup.tenant.max_pixels = Some(cap)).await;
    for options in ["", "&prompt=read", "&task=table_parsing"] {
        let query = format!("rotate=auto{options}");
        let estimate = gateway.upload(&format!("/estimate?{query}"), fixture("hello.png")).await;
        assert_eq!(estimate.json["bound"]["image_tokens"], 1_026, "{query}");
        let answer = gateway.upload(&format!("/ocr?{query}"), fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let call = gateway.upstream().calls().pop().unwrap();
        assert!(call.path.ends_with("/multimodal-generation/generation"), "{query}");
        assert_eq!(
            (call.task.is_some(), call.prompt),
            (query.contains("task"), query.contains("prompt"))
        );
    }
    let extract = "/extract?template=receipt&rotate=auto";
    assert_eq!(gateway.upload(extract, fixture("hello.png")).await.status, 200);
    for options in ["detail=lines", "task=advanced_recognition"] {
        let query = format!("/estimate?rotate=auto&{options}");
        let answer = gateway.upload(&query, fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"));
        assert_eq!(answer.json["errors"][0]["pointer"], "/rotate");
    }
}

// Suspicious answers.

/// The warnings of a page that is read with `options` and this number of output tokens.
async fn warnings(text: &str, options: &str, max_tokens: u64) -> Value {
    let gateway = TestGateway::with(|setup| {
        setup.emulator.engine = EngineChoice::Scripted(text.to_owned());
        setup.tenant.max_tokens = NonZeroU64::new(max_tokens);
    })
    .await;
    let answer = gateway.upload(&format!("/ocr?{options}"), fixture("hello.png")).await;
    answer.json["pages"][0]["warnings"].clone()
}

#[tokio::test]
async fn an_answer_that_runs_into_its_limit_in_a_loop_is_told() {
    let text = format!("Harbour Street Books\n{}", "apples 1.00\n".repeat(500));
    assert_eq!(warnings(&text, "", 1_000).await, json!(["truncated", "repetition_suspected"]));
    assert_eq!(warnings(&"apples 1.00\n".repeat(60), "", 1_000).await, json!([]));
}

#[tokio::test]
async fn a_table_that_is_cut_comes_without_its_fence_and_is_told() {
    let both = json!(["truncated", "unbalanced_markup"]);
    assert_eq!(warnings("apples 1.00", "task=table_parsing", 8).await, both);
    assert_eq!(warnings("apples 1.00 and pears", "", 2).await, json!(["truncated"]));
}
