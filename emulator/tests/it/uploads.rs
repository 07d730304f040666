//! A file that is uploaded under a policy has an address, as the vendor's SDK expects.

use dashscope_emulator::{Emulator, EngineChoice, Options};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::client::{GENERATION, MODEL, Reply, blank_png, generation_with, open, scripted, send};

const KEY: &str = "authorization: Bearer k\r\n";

async fn policy(emulator: &Emulator) -> Value {
    let line = format!("GET /api/v1/uploads?action=getPolicy&model={MODEL}");
    send(emulator, &line, KEY, "").await.json()["data"].take()
}

/// The fields of a form as the vendor's SDK orders them, without the file.
fn fields(policy: &Value, name: &str) -> Vec<(&'static str, String)> {
    let member = |name: &str| policy[name].as_str().unwrap().to_owned();
    vec![
        ("OSSAccessKeyId", member("oss_access_key_id")),
        ("Signature", member("signature")),
        ("policy", member("policy")),
        ("key", format!("{}/{name}", member("upload_dir"))),
        ("x-oss-object-acl", member("x_oss_object_acl")),
        ("x-oss-forbid-overwrite", member("x_oss_forbid_overwrite")),
        ("success_action_status", "200".to_owned()),
        ("x-oss-content-type", "image/png".to_owned()),
    ]
}

/// Posts a form (RFC 7578) with a file at its end.
async fn upload(emulator: &Emulator, fields: &[(&str, String)], file: &[u8]) -> Reply {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    body.extend(b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
    body.extend(file);
    body.extend(b"\r\n--b--\r\n");
    let headers = "content-type: multipart/form-data; boundary=b\r\n";
    let mut stream = open(emulator, "POST /__oss", headers, &body).await;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    Reply::of(&received, false)
}

#[tokio::test]
async fn an_uploaded_image_is_read_at_its_oss_address() {
    let emulator = scripted("read at {width}x{height}").await;
    let policy = policy(&emulator).await;
    assert_eq!(policy["upload_host"], format!("{}/__oss", emulator.base_url()));
    let reply = upload(&emulator, &fields(&policy, "page.png"), &blank_png(100, 100)).await;
    assert_eq!(reply.status, 200, "{reply:?}");

    let url = format!("oss://{}/page.png", policy["upload_dir"].as_str().unwrap());
    let request = generation_with(&json!({ "image": url })).to_string();
    let headers = format!("{KEY}x-dashscope-ossresourceresolve: enable\r\n");
    let answer = send(&emulator, &format!("POST {GENERATION}"), &headers, &request).await.json();
    let content = &answer["output"]["choices"][0]["message"]["content"];
    assert_eq!(content, &json!([{ "text": "read at 96x96" }]));
}

#[tokio::test]
async fn a_key_outside_of_the_policy_and_one_that_is_taken_are_denied() {
    let emulator = scripted("x").await;
    let policy = policy(&emulator).await;
    let mut elsewhere = fields(&policy, "page.png");
    elsewhere[3].1 = "dashscope-instant/another/page.png".to_owned();
    let denied = upload(&emulator, &elsewhere, b"x").await;
    assert!(
        denied.status == 403 && denied.body.contains("<Code>AccessDenied</Code>"),
        "{denied:?}"
    );
    let fields = fields(&policy, "page.png");
    assert_eq!(upload(&emulator, &fields, b"x").await.status, 200);
    assert_eq!(upload(&emulator, &fields, b"y").await.status, 409);
}

#[tokio::test]
async fn a_form_that_lacks_a_field_in_front_of_its_file_is_refused_by_the_fields_name() {
    let emulator = scripted("x").await;
    let whole = fields(&policy(&emulator).await, "page.png");
    for missing in ["OSSAccessKeyId", "Signature", "policy", "key"] {
        let mut form = whole.clone();
        form.retain(|(name, _)| *name != missing);
        let reply = upload(&emulator, &form, b"x").await;
        assert!(reply.status == 400 && reply.body.contains(missing), "{reply:?}");
    }
}

#[tokio::test]
async fn a_policy_is_given_to_known_keys_for_a_model() {
    let engine = EngineChoice::Scripted(String::new());
    let api_keys = vec!["k".to_owned()];
    let options = Options { engine, api_keys, ..Options::default() };
    let emulator = Emulator::start(options).await.unwrap();
    let asked = async |query: &str, key: &str| {
        send(&emulator, &format!("GET /api/v1/uploads?{query}"), key, "").await.status
    };
    let right = "action=getPolicy&model=qwen-vl-ocr";
    assert_eq!(asked(right, KEY).await, 200);
    assert_eq!(asked(right, "authorization: Bearer other\r\n").await, 401);
    assert_eq!(asked("action=getPolicy", KEY).await, 400);
    assert_eq!(asked("model=qwen-vl-ocr", KEY).await, 400);
}
