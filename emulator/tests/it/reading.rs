//! Images are really read, at the size of the formula.

use dashscope_emulator::{Emulator, EngineChoice, Options, PixelLimits, StartError, transcribe};
use serde_json::json;

use crate::client::{CHAT, GENERATION, MODEL, chat, data, data_url, generation_with, post, reader};

#[tokio::test]
async fn a_blank_image_is_an_empty_text_and_no_error() {
    let Some(emulator) = reader().await else { return };
    let answer = post(&emulator, CHAT, &chat()).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}

#[tokio::test]
async fn an_answer_is_word_for_word_what_is_read_in_the_process() {
    let Some(emulator) = reader().await else { return };
    let Some(path) = data("misc/invoice_simple.png") else { return };
    let image = std::fs::read(path).unwrap();
    for max_pixels in [i64::MAX, 400_000] {
        let limits = PixelLimits { min_pixels: None, max_pixels: Some(max_pixels) };
        let item = json!({"image": data_url("image/png", &image), "max_pixels": max_pixels});
        let answer = post(&emulator, GENERATION, &generation_with(&item)).await.json();
        let answered = &answer["output"]["choices"][0]["message"]["content"][0]["text"];
        let text = transcribe(&EngineChoice::default(), MODEL, image.clone(), limits).await;
        assert_eq!(answered, &text.unwrap());
        assert_eq!(answered.as_str().unwrap().contains("Invoice"), max_pixels == i64::MAX);
    }
}

#[tokio::test]
async fn a_language_that_is_not_installed_stops_the_start_and_names_the_package() {
    if reader().await.is_none() {
        return;
    }
    let languages = Some(vec!["eng".to_owned(), "tlh_x".to_owned()]);
    let engine = EngineChoice::Tesseract { languages };
    let error = Emulator::start(Options { engine, ..Options::default() }).await.unwrap_err();
    assert!(matches!(error, StartError::LanguagesMissing { .. }));
    assert!(error.to_string().contains("tesseract-ocr-tlh-x"), "{error}");
}
