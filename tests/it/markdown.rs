//! `/ocr` as Markdown of a whole document.

use std::num::NonZeroU64;

use dashscope_emulator::{EngineChoice, Fault};
use ocr_gateway::auth::tenant::Tenant;
use serde_json::{Value, json};

use crate::harness::{Answer, TestGateway, fixture};
use crate::pages::{numbered, width_of};

/// At this resolution a point is a pixel.
const MARKDOWN: &str = "/ocr?format=markdown&dpi=72";

/// A gateway whose upstream reads this text on each page, with the page's width in the place of `{width}`.
async fn reading(text: &str) -> TestGateway {
    let text = text.to_owned();
    TestGateway::with(|setup| setup.emulator.engine = EngineChoice::Scripted(text)).await
}

#[tokio::test]
async fn the_pages_of_a_document_have_their_numbers_and_an_image_has_none() {
    let gateway = reading("# page {width}").await;
    let whole = gateway.upload(MARKDOWN, numbered(3)).await;
    assert_eq!(whole.header("content-type"), "text/markdown; charset=utf-8");
    let page = |number| format!("<!-- page {number} -->\n\n# page {}", width_of(number));
    assert_eq!(whole.text, [page(1), page(2), page(3)].join("\n\n"));
    let one = gateway.upload(&format!("{MARKDOWN}&pages=2"), numbered(3)).await;
    assert_eq!(one.text, page(2));
    let only = gateway.upload(MARKDOWN, numbered(1)).await;
    assert_eq!(only.text, format!("# page {}", width_of(1)));
    let image = gateway.upload("/ocr?format=markdown", fixture("hello.png")).await;
    assert!(image.text.starts_with("# page "), "{}", image.text);
    assert!(only.headers.get("ocr-warnings").is_none());
}

#[tokio::test]
async fn a_page_that_failed_leaves_a_comment_with_its_code() {
    let gateway = reading("page {width}").await;
    let refused = Fault::code("DataInspectionFailed").for_images_as_wide_as(width_of(2));
    gateway.upstream().add_fault(refused);
    let answer = gateway.upload(MARKDOWN, numbered(3)).await;
    assert_eq!((answer.status.as_u16(), answer.header("ocr-pages-failed")), (200, "1"));
    let (first, third) = (width_of(1), width_of(3));
    let expected = format!(
        "<!-- page 1 -->\n\npage {first}\n\n<!-- page 2: failed, content_rejected -->\n\n\
         <!-- page 3 -->\n\npage {third}"
    );
    assert_eq!(answer.text, expected);
}

#[tokio::test]
async fn a_table_over_all_pages_is_one_table() {
    let gateway = reading("| | |\n|---|---|\n| nails | {width} |").await;
    let answer = gateway.upload(MARKDOWN, numbered(3)).await;
    let [first, second, third] = [1, 2, 3].map(width_of);
    let expected = format!(
        "<!-- page 1 -->\n\n| | |\n|---|---|\n| nails | {first} |\n| nails | {second} |\n\
         | nails | {third} |\n\n<!-- page 2: begins in the table above -->\n\n\
         <!-- page 3: begins in the table above -->"
    );
    assert_eq!(answer.text, expected);
}

#[tokio::test]
async fn pages_that_are_the_same_table_each_stay_apart() {
    let table = "| item | width |\n|---|---|\n| nails | {width} |";
    let gateway = reading(table).await;
    let answer = gateway.upload(MARKDOWN, numbered(3)).await;
    let page = |number: u32| {
        let table = table.replace("{width}", &width_of(number).to_string());
        format!("<!-- page {number} -->\n\n{table}")
    };
    assert_eq!(answer.text, [1, 2, 3].map(page).join("\n\n"));
}

#[tokio::test]
async fn headers_and_footers_that_repeat_are_told_and_left_in() {
    let gateway = reading("ACME Ltd\n\ntext {width}\n\nConfidential").await;
    let answer = gateway.upload(MARKDOWN, numbered(3)).await;
    assert_eq!(answer.header("ocr-warnings"), "repeated_footer, repeated_header");
    assert_eq!(answer.text.matches("ACME Ltd").count(), 3);
    let stream = gateway.post(MARKDOWN).header("accept", "text/event-stream").body(numbered(3));
    let stream = Answer::of(stream).await;
    let last = stream.text.split_terminator("\n\n").last().unwrap();
    let data = last.strip_prefix("event: answer\ndata: ").unwrap();
    let told = &serde_json::from_str::<Value>(data).unwrap()["warnings"];
    let warning = |code, text| json!({ "code": code, "pages": [1, 2, 3], "text": text });
    let expected =
        [warning("repeated_header", "ACME Ltd"), warning("repeated_footer", "Confidential")];
    assert_eq!(told, &json!(expected));
    let plain = gateway.upload("/ocr?dpi=72", numbered(3)).await;
    assert_eq!(plain.json["warnings"], json!([]));
}

#[tokio::test]
async fn an_answer_in_text_has_the_codes_of_its_warnings_in_a_header() {
    let gateway = reading(&"the text of a page ".repeat(50)).await;
    let key = {
        let tenant =
            Tenant { max_tokens: NonZeroU64::new(8), ..Tenant::new("brief".parse().unwrap()) };
        gateway.key_of(&tenant).await
    };
    for format in ["text", "markdown"] {
        let request = gateway.post_as(&key, &format!("/ocr?format={format}&dpi=72"));
        let answer = Answer::of(request.body(numbered(2))).await;
        assert!(answer.header("ocr-warnings").contains("truncated"), "{}", answer.text);
    }
    let json = Answer::of(gateway.post_as(&key, "/ocr?dpi=72").body(numbered(2))).await;
    assert!(json.headers.get("ocr-warnings").is_none());
}
