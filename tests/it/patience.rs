//! A call whose answer cannot come in time is not sent, and costs nothing.

use std::num::NonZeroU64;

use dashscope_emulator::Fault;

use crate::dropin::{CHAT, GENERATION, chat, generation};
use crate::harness::{Answer, TestGateway, fixture};

/// The bound of one page of the fixtures, by the estimate.
async fn bound(gateway: &TestGateway) -> u64 {
    let estimate = gateway.upload("/estimate", fixture("hello.png")).await;
    estimate.json["bound"]["total_tokens"].as_u64().unwrap()
}

async fn unverified(gateway: &TestGateway) -> u64 {
    gateway.count("tokens_unverified_total", &[]).await
}

#[tokio::test]
async fn a_wait_that_no_call_can_keep_is_answered_at_once_and_both_times_are_named() {
    let gateway = TestGateway::start().await;
    gateway.upstream().add_fault(Fault::hang());
    let requests = [
        ("/ocr", fixture("hello.png")),
        ("/extract?template=receipt", fixture("hello.png")),
        (CHAT, chat().to_string().into_bytes()),
        (GENERATION, generation().to_string().into_bytes()),
    ];
    for (route, body) in requests {
        let request = gateway.post(route).header("prefer", "wait=0").body(body);
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 504, "{route} {}", answer.text);
        for named in ["0 ms", "500 ms", "Prefer: wait"] {
            assert!(answer.text.contains(named), "{route} {named} {}", answer.text);
        }
    }
    let policy = gateway.get("/api/v1/uploads?action=getPolicy&model=qwen-vl-ocr");
    assert_eq!(Answer::of(policy.header("prefer", "wait=0")).await.status, 504);
    assert_eq!((gateway.upstream().bill().received, unverified(&gateway).await), (0, 0));
}

#[tokio::test]
async fn an_estimate_takes_no_call_and_so_no_time() {
    let gateway = TestGateway::start().await;
    let request = gateway.post("/estimate").header("prefer", "wait=0").body(fixture("hello.png"));
    assert_eq!(Answer::of(request).await.status, 200);
}

/// The first call releases room in the budget when it is billed, too late for the second.
#[tokio::test]
async fn room_that_comes_shortly_before_the_deadline_is_not_used() {
    let probe = bound(&TestGateway::start().await).await;
    let gateway = TestGateway::with(|setup| {
        setup.tenant.daily_tokens = NonZeroU64::new(probe * 3 / 2);
    })
    .await;
    gateway.upstream().add_fault(Fault::delay(1_900).times(1));
    gateway.upstream().add_fault(Fault::hang());
    let waiting = async {
        gateway.until_upstream_has(1).await;
        let request = gateway.post("/ocr").header("prefer", "wait=2").body(fixture("hello.png"));
        Answer::of(request).await
    };
    let (first, second) = tokio::join!(gateway.upload("/ocr", fixture("hello.png")), waiting);
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!((second.status.as_u16(), second.code()), (429, "budget_exhausted"));
    assert_eq!((gateway.upstream().bill().received, unverified(&gateway).await), (1, 0));
}
