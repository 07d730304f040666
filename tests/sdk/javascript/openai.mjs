// OpenAI's SDK for JavaScript: whole, streamed and refused calls. Only `baseURL` and `apiKey` differ from a program
// that calls DashScope itself.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import OpenAI from 'openai';

const { GATEWAY_ADDRESS, GATEWAY_KEY, IMAGE, IMAGE_URL, EXPECTED_TEXT } = process.env;

const baseURL = `${GATEWAY_ADDRESS}/compatible-mode/v1`;
const model = 'qwen-vl-ocr-2025-11-20';
const gif = new URL('../../fixtures/plain.gif', import.meta.url);

const shown = (what) => console.log(`shown: ${what}`);
const dataUrl = async (path, type) => `data:${type};base64,${await readFile(path, 'base64')}`;
const question = (url, limits = {}) => [
  {
    role: 'user',
    content: [
      { type: 'image_url', image_url: { url }, ...limits },
      { type: 'text', text: 'Read all the text in the image.' },
    ],
  },
];

const client = new OpenAI({ apiKey: GATEWAY_KEY, baseURL });
const messages = question(await dataUrl(IMAGE, 'image/png'));

{
  const completion = await client.chat.completions.create({ model, messages });
  assert.equal(completion.choices[0].message.content, EXPECTED_TEXT);
  assert.equal(completion.choices[0].finish_reason, 'stop');
  assert.ok(completion._request_id);
  const { prompt_tokens, completion_tokens, total_tokens } = completion.usage;
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  shown('image as data URL, usage, request id');
}

{
  const completion = await client.chat.completions.create({
    model,
    messages: question(IMAGE_URL, { min_pixels: 32 * 32 * 3, max_pixels: 32 * 32 * 8192 }),
    max_tokens: 1000,
    top_k: 1,
  });
  assert.equal(completion.choices[0].message.content, EXPECTED_TEXT);
  shown('image as URL, with limits of pixels, of tokens, and a parameter of the vendor');
}

{
  let text = '';
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of stream) {
    text += chunk.choices[0].delta.content ?? '';
  }
  assert.equal(text, EXPECTED_TEXT);
  shown('a stream without usage has no chunk without a choice');
}

{
  const chunks = [];
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) chunks.push(chunk);
  const bill = chunks.pop();
  assert.deepEqual(bill.choices, []);
  assert.ok(bill.usage.total_tokens > 0);
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join(''), EXPECTED_TEXT);
  shown('a stream with usage, which comes last');
}

{
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices[0]);
    break;
  }
  const completion = await client.chat.completions.create({ model, messages });
  assert.equal(completion.choices[0].message.content, EXPECTED_TEXT);
  shown('a call after a stream that was left early');
}

{
  const models = [];
  for await (const { id } of client.models.list()) models.push(id);
  assert.ok(models.includes(model));
  shown('the list of models');
}

// The error of a refused call. Any other result ends the program.
async function refusal(expected, call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof expected)) throw error;
    assert.ok(error.requestID);
    return error;
  }
  assert.fail(`answered in the place of ${expected.name}`);
}

for (const stream of [false, true]) {
  const way = stream ? 'streamed' : 'at once';
  const create = (changed) => () =>
    client.chat.completions.create({ model, messages, stream, ...changed });

  const stranger = new OpenAI({ apiKey: 'sk-no-such-key', baseURL });
  const unauthorized = await refusal(OpenAI.AuthenticationError, () =>
    stranger.chat.completions.create({ model, messages, stream }),
  );
  assert.equal(unauthorized.status, 401);
  assert.equal(unauthorized.code, 'invalid_api_key');
  shown(`a wrong key, ${way}: AuthenticationError`);

  const unknown = await refusal(OpenAI.NotFoundError, create({ model: 'no-such-model' }));
  assert.equal(unknown.status, 404);
  assert.equal(unknown.code, 'model_not_found');
  shown(`an unknown model, ${way}: NotFoundError`);

  const picture = question(await dataUrl(gif, 'image/gif'));
  const refused = await refusal(OpenAI.BadRequestError, create({ messages: picture }));
  assert.equal(refused.status, 400);
  assert.ok(refused.code);
  shown(`a GIF, ${way}: BadRequestError`);
}
