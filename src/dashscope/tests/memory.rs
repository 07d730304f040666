//! Answers that are longer than a page, and the memory that they take.

use super::*;
use crate::dashscope::{Forward, Forwarded, Protocol, Streamed};

/// A good answer whose text has so many bytes.
fn long_answer(length: usize) -> Step {
    let text = "x".repeat(length);
    json(
        200,
        &format!(
            r#"{{"choices":[{{"finish_reason":"stop","message":{{"content":"{text}"}}}}],
            "usage":{{"prompt_tokens":752,"completion_tokens":432}}}}"#
        ),
    )
}

#[tokio::test]
async fn a_long_answer_takes_of_the_memory_of_uploads_while_it_is_read_and_fails_where_there_is_none()
 {
    let world = World::new([long_answer(500_000), long_answer(1_200_000), answer()]).await;
    assert_eq!(world.call().await.unwrap().text.len(), 500_000);
    assert_eq!(world.memory.held(), 0);
    let error = world.call().await.unwrap_err();
    let Fault::NoRoom(no_room) = error.fault else { panic!("{error:?}") };
    assert!(no_room.allowed == MEMORY && no_room.actual > MEMORY, "{no_room}");
    assert_eq!((error.attempts, world.memory.held()), (1, 0));
    assert_eq!(world.account(), (1184, 9_000), "it may have been billed");
    world.call().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_passed_on_counts_until_it_was_sent() {
    let world = World::new([long_answer(500_000)]).await;
    let forward = Forward {
        protocol: Protocol::Compatible,
        body: vec![Bytes::from_static(b"{}")],
        stream: false,
        resolves_oss: false,
    };
    let deadline = world.clock.instant() + Duration::from_mins(1);
    let forwarded = world.client.forward(world.permit().await, &forward, deadline).await;
    let Ok(Forwarded::Whole { body, .. }) = forwarded else { panic!("{forwarded:?}") };
    assert!(body.len() > 500_000 && world.memory.held() > 400_000);
    drop(body);
    assert_eq!(world.memory.held(), 0);
}

#[tokio::test]
async fn an_event_that_grows_beyond_the_memory_ends_its_stream() {
    let first = "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n";
    let events = format!("{first}data: {}", "x".repeat(1_200_000));
    let step = Step::write(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999999\r\n\r\n{events}"
    ));
    let world = World::new([step.then_hang()]).await;
    let deadline = world.clock.instant() + Duration::from_mins(1);
    let call = page(b"picture".as_slice());
    let streamed = world.client.stream(world.permit().await, &call, deadline).await;
    let Ok(Streamed::Stream(mut stream)) = streamed else { panic!("{streamed:?}") };
    while stream.next().await.is_some() {}
    let fault = stream.end().await.unwrap_err().error.fault;
    assert!(matches!(fault, Fault::NoRoom(_)), "{fault:?}");
    assert_eq!((world.account(), world.memory.held()), ((0, 9_000), 0));
}
