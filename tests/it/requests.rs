//! Correct HTTP and options: methods, headers, connections, names.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::harness::{Answer, TestGateway, fixture, jpeg_of};
use crate::wire::Wire;

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::to(&gateway).await;
    let file = fixture("hello.png");
    let headers = format!("Content-Length: {}\nExpect: 100-continue", file.len());
    wire.head("POST /ocr", &headers).await;
    assert_eq!(wire.answer().await.status, 100);
    wire.send(&file).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_too_much_need_not_send_it() {
    let gateway = TestGateway::with_limit(20_000).await;
    let mut wire = Wire::to(&gateway).await;
    wire.head("POST /ocr", "Content-Length: 20001\nExpect: 100-continue").await;
    let answer = wire.answer().await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_connection_outlives_an_error_and_takes_requests_in_a_row() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::to(&gateway).await;
    let file = fixture("tiny.png");
    let length = format!("Content-Length: {}", file.len());
    wire.head("GET /nowhere", "").await;
    wire.head("POST /ocr", &length).await;
    wire.send(&file).await;
    wire.head("GET /livez", "").await;
    for status in [404, 422, 200] {
        assert_eq!(wire.answer().await.status, status);
    }
}

#[tokio::test]
async fn a_path_or_a_method_that_there_is_not_is_a_problem_that_says_what_there_is() {
    let gateway = TestGateway::start().await;
    for (method, path, status, code, allow) in [
        (Method::GET, "/nowhere", 404, "not_found", ""),
        (Method::OPTIONS, "/nowhere", 404, "not_found", ""),
        (Method::POST, "/ocr/", 404, "not_found", ""),
        (Method::GET, "/metrics", 404, "not_found", ""),
        (Method::GET, "/ocr", 405, "method_not_allowed", "POST"),
        (Method::OPTIONS, "/ocr", 405, "method_not_allowed", "POST"),
        (Method::PATCH, "/extract", 405, "method_not_allowed", "POST"),
        (Method::DELETE, "/templates", 405, "method_not_allowed", "GET,HEAD"),
    ] {
        let request = gateway.http.request(method.clone(), format!("{}{path}", gateway.address));
        let answer = Answer::of(request.bearer_auth(&gateway.key)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{method} {path}");
        let told = answer.header("allow");
        assert!(told.starts_with(allow) && told.is_empty() == allow.is_empty(), "{method} {path}");
        assert_eq!(answer.json["instance"], path);
    }
}

#[tokio::test]
async fn a_head_request_has_the_status_and_no_body() {
    let gateway = TestGateway::start().await;
    for (path, status) in [("/nowhere", 404), ("/ocr", 405), ("/livez", 200), ("/templates", 200)] {
        let request = gateway.http.head(format!("{}{path}", gateway.address));
        let answer = Answer::of(request.bearer_auth(&gateway.key)).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.text, "");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn a_form_of_answer_that_there_is_not_is_refused_before_anything_is_spent() {
    let gateway = TestGateway::start().await;
    let request = gateway.post("/ocr").header("accept", "image/png").body(fixture("hello.png"));
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (406, "not_acceptable"));
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn a_request_id_is_taken_when_it_is_printable_and_short_and_made_otherwise() {
    let gateway = TestGateway::start().await;
    let longest = "i".repeat(128);
    for (sent, is_taken) in [
        ("order 66/b".as_bytes(), true),
        (longest.as_bytes(), true),
        ([b'i'; 129].as_slice(), false),
        ("grün".as_bytes(), false),
        (b"tab\there", false),
        (b"", false),
    ] {
        for path in ["/livez", "/nowhere", "/templates/nothing"] {
            let answer = Answer::of(gateway.get(path).header("x-request-id", sent)).await;
            let returned = answer.header("x-request-id");
            assert_eq!(returned.as_bytes() == sent, is_taken, "{returned:?}");
            assert!(!returned.is_empty() && returned.len() <= 128);
            assert!(answer.status == 200 || answer.json["request_id"] == returned);
        }
    }
}

#[tokio::test]
async fn every_answer_says_that_it_is_not_to_be_kept_or_sniffed() {
    let gateway = TestGateway::with_limit(20_000).await;
    let requests = [
        gateway.post("/ocr").body(fixture("hello.png")),
        gateway.post("/ocr").body(fixture("tiny.png")),
        gateway.post("/ocr").body(jpeg_of(20_001)),
        gateway.post("/estimate").body(fixture("hello.png")),
        gateway.post("/extract?template=receipt").body(fixture("hello.png")),
        gateway.get("/ocr"),
        gateway.get("/nowhere"),
        gateway.get("/livez"),
        gateway.get("/templates"),
        gateway.http.get(format!("{}/templates", gateway.address)),
        gateway.http.get(format!("{}/metrics", gateway.metrics_address)),
    ];
    for request in requests {
        let answer = Answer::of(request).await;
        assert_eq!(answer.header("cache-control"), "no-store", "{}", answer.text);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", answer.text);
        assert!(!answer.header("x-request-id").is_empty());
    }
}

// Options.

/// Checks that a query is refused with this code at this place, and that nothing is sent.
async fn refuses(query: &str, code: &str, pointer: &str) {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload(&format!("/ocr?{query}"), fixture("hello.png")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{}", answer.text);
    assert_eq!(answer.json["errors"][0]["pointer"], pointer, "{}", answer.text);
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn an_option_that_is_unknown_or_given_twice_is_400_with_its_name() {
    refuses("langauge=de", "unknown_option", "/langauge").await;
    refuses("Model=x", "unknown_option", "/Model").await;
    refuses("max_pixels=65536&max_pixels=65537", "invalid_option", "/max_pixels").await;
}

#[tokio::test]
async fn a_number_that_is_no_number_of_pixels_is_400_with_its_name() {
    for value in ["-1", "0", "%2B9", "1e6", "99999999999999999999", ""] {
        refuses(&format!("max_pixels={value}"), "invalid_option", "/max_pixels").await;
    }
    refuses("min_pixels=9000&max_pixels=8000", "invalid_option", "/min_pixels").await;
}

#[tokio::test]
async fn a_value_that_there_is_not_is_400_with_its_name() {
    for option in ["model=", "model=gpt-4o", "task=poetry", "detail=words", "format=xml"] {
        let name = option.split('=').next().unwrap();
        refuses(option, "invalid_option", &format!("/{name}")).await;
    }
    for option in ["language=de%20de", "metadata=5", "prompt=+", "schema={}", "template=receipt"] {
        let name = option.split('=').next().unwrap();
        refuses(option, "invalid_option", &format!("/{name}")).await;
    }
    for pages in ["0", "3-1", "", "--", "1,", "all"] {
        refuses(&format!("pages={pages}"), "invalid_pages", "/pages").await;
    }
    for option in ["dpi=49", "dpi=601", "pdf_text=on", "downscale=yes"] {
        let name = option.split('=').next().unwrap();
        refuses(option, "invalid_option", &format!("/{name}")).await;
    }
    refuses("prompt=x&task=table_parsing", "invalid_option", "/prompt").await;
}

#[tokio::test]
async fn an_option_given_twice_with_one_value_is_one_option_wherever_it_stands() {
    let gateway = TestGateway::start().await;
    let part = Part::bytes(fixture("hello.png"));
    let form = Form::new().part("file", part).text("max_pixels", "65536");
    let twice = gateway.post("/ocr?max_pixels=65536&max_pixels=65536").multipart(form);
    let answer = Answer::of(twice).await;
    assert_eq!(answer.json["pages"][0]["sent"]["max_pixels"], 65_536, "{}", answer.text);
    let part = Part::bytes(fixture("hello.png"));
    let form = Form::new().part("file", part).text("max_pixels", "65537");
    let answer = Answer::of(gateway.post("/ocr?max_pixels=65536").multipart(form)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_option"));
}

#[tokio::test]
async fn a_page_that_an_image_does_not_have_is_422_on_every_route_and_nothing_is_sent() {
    let gateway = TestGateway::start().await;
    for route in ["/ocr?", "/extract?template=receipt&", "/estimate?"] {
        for (pages, asked) in [("2", 2), ("1,7", 7), ("3-", 3)] {
            let path = format!("{route}pages={pages}");
            let answer = gateway.upload(&path, fixture("hello.png")).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (422, "page_not_found"), "{path}");
            let limit = json!({"name": "pages", "actual": asked, "allowed": 1});
            assert_eq!(answer.json["limit"], limit, "{}", answer.text);
        }
    }
    assert_eq!(gateway.upstream().bill().received, 0);
}

#[tokio::test]
async fn the_options_of_documents_change_nothing_about_a_small_image_however_they_come() {
    let gateway = TestGateway::start().await;
    let plain = gateway.upload("/estimate", fixture("hello.png")).await;
    let query = "pages=1-&dpi=600&pdf_text=prefer&downscale=always";
    let by_query = gateway.upload(&format!("/estimate?{query}"), fixture("hello.png")).await;
    let form = Form::new()
        .part("file", Part::bytes(fixture("hello.png")))
        .text("pages", " 1 - 3 ")
        .text("dpi", "50")
        .text("pdf_text", "off")
        .text("downscale", "never");
    let by_form = Answer::of(gateway.post("/estimate").multipart(form)).await;
    let body = json!({
        "document": {"type": "base64", "data": base64_simd::STANDARD.encode_to_string(fixture("hello.png"))},
        "pages": 1, "dpi": 300, "pdf_text": "prefer", "downscale": "auto",
    });
    let request = gateway.post("/estimate").header("content-type", "application/json");
    let by_member = Answer::of(request.body(body.to_string())).await;
    for answer in [by_query, by_form, by_member] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json, plain.json);
    }
}

#[tokio::test]
async fn all_flaws_of_a_request_are_told_at_once() {
    let gateway = TestGateway::start().await;
    let answer = gateway.upload("/ocr?detail=x&format=y&max_pixels=z", fixture("hello.png")).await;
    let told: Vec<_> = answer.json["errors"].as_array().unwrap().iter().collect();
    let pointers: Vec<_> = told.iter().map(|flaw| flaw["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/detail", "/format", "/max_pixels"]);
}

#[tokio::test]
async fn fields_need_exactly_one_of_schema_and_template() {
    let gateway = TestGateway::start().await;
    let schema = "%7B%22type%22%3A%22object%22%2C%22properties%22%3A%7B%22a%22%3A%7B%22type%22%3A%22string%22%7D%7D%7D";
    for (query, status, code) in [
        (String::new(), 400, "invalid_option"),
        (format!("schema={schema}&template=receipt"), 400, "invalid_option"),
        ("template=menu".to_owned(), 404, "unknown_template"),
        ("schema=%7B%22type%22%3A%22string%22%7D".to_owned(), 400, "schema_invalid"),
        ("schema=nonsense".to_owned(), 400, "invalid_option"),
        (format!("schema={schema}&prompt=x"), 400, "invalid_option"),
    ] {
        let answer = gateway.upload(&format!("/extract?{query}"), fixture("hello.png")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{}", answer.text);
    }
    let answer = gateway.upload(&format!("/extract?schema={schema}"), fixture("hello.png")).await;
    assert_eq!(answer.json["data"], json!({ "a": null }), "{}", answer.text);
}
