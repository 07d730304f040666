// The Vercel AI SDK with both of its providers for OpenAI's protocol: whole, streamed, structured and refused calls.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, Output, streamText, tool } from 'ai';

const { GATEWAY_ADDRESS, GATEWAY_KEY, GATEWAY_ONLY, IMAGE, EXPECTED_TEXT } = process.env;

globalThis.AI_SDK_LOG_WARNINGS = false;

const baseURL = `${GATEWAY_ADDRESS}/compatible-mode/v1`;
const model = 'qwen-vl-ocr-2025-11-20';
const small = 16 * 32 * 32;
const smallTokens = 16 + 2;

const providers = {
  'openai-compatible': {
    chat: (name, apiKey) =>
      createOpenAICompatible({
        name: 'qwen',
        baseURL,
        apiKey,
        includeUsage: true,
        supportsStructuredOutputs: true,
      })(name),
    options: { openaiCompatible: { user: 'accounting', top_k: 1 } },
  },
  openai: {
    chat: (name, apiKey) => createOpenAI({ baseURL, apiKey }).chat(name),
    options: { openai: { user: 'accounting' } },
  },
};

const png = await readFile(IMAGE);
const gif = await readFile(new URL('../../fixtures/plain.gif', import.meta.url));

const shown = (what) => console.log(`shown: ${what}`);
const question = (data, mediaType, more = {}) => [
  {
    role: 'user',
    content: [
      { type: 'file', data, mediaType, ...more },
      { type: 'text', text: 'Read the invoice as JSON.' },
    ],
  },
];
const messages = question(png, 'image/png');

const schema = jsonSchema({
  type: 'object',
  properties: { number: { type: 'string' }, total: { type: 'number' } },
  required: ['number', 'total'],
  additionalProperties: false,
});

function assertBill({ inputTokens, outputTokens, totalTokens }) {
  assert.ok(inputTokens > 0 && outputTokens > 0);
  assert.equal(totalTokens, inputTokens + outputTokens);
}

// The error of a refused call, whole or streamed. Any other result ends the program.
async function refusal(call, stream) {
  if (!stream) {
    const error = await generateText(call).then(
      () => assert.fail('answered in the place of an error'),
      (error) => error,
    );
    if (!APICallError.isInstance(error)) throw error;
    return error;
  }
  for await (const part of streamText({ ...call, onError() {} }).fullStream) {
    if (part.type === 'error') {
      assert.ok(APICallError.isInstance(part.error));
      return part.error;
    }
  }
  assert.fail('answered in the place of an error');
}

for (const [provider, { chat, options }] of Object.entries(providers)) {
  const call = { model: chat(model, GATEWAY_KEY), messages };

  {
    const { text, finishReason, usage } = await generateText(call);
    assert.equal(text, EXPECTED_TEXT);
    assert.equal(finishReason, 'stop');
    assertBill(usage);
    assert.ok(usage.inputTokens > smallTokens);
    shown(`${provider}: image, usage`);
  }

  {
    const url = `data:image/png;base64,${png.toString('base64')}`;
    const { text } = await generateText({ ...call, messages: question(url, 'image/png') });
    assert.equal(text, EXPECTED_TEXT);
    shown(`${provider}: image as data URL`);
  }

  {
    const { text } = await generateText({
      ...call,
      temperature: 0.01,
      topP: 0.5,
      seed: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      stopSequences: ['</page>'],
      providerOptions: options,
    });
    assert.equal(text, EXPECTED_TEXT);
    shown(`${provider}: sampling parameters, and options of the provider`);
  }

  {
    const { finishReason, usage } = await generateText({ ...call, maxOutputTokens: 2 });
    assert.equal(finishReason, 'length');
    assert.equal(usage.outputTokens, 2);
    shown(`${provider}: maxOutputTokens cuts the answer off`);
  }

  {
    const turns = [...messages, { role: 'assistant', content: EXPECTED_TEXT }, ...messages];
    const { text } = await generateText({ ...call, messages: turns });
    assert.equal(text, EXPECTED_TEXT);
    shown(`${provider}: a further image, after the assistant's answer`);
  }

  {
    const stream = streamText(call);
    let text = '';
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, EXPECTED_TEXT);
    assert.equal(await stream.finishReason, 'stop');
    assertBill(await stream.usage);
    shown(`${provider}: a stream with usage`);
  }

  {
    const expected = JSON.parse(EXPECTED_TEXT);
    for (const output of [Output.object({ schema }), Output.json()]) {
      assert.deepEqual((await generateText({ ...call, output })).output, expected);
    }
    const stream = streamText({ ...call, output: Output.object({ schema }) });
    await stream.consumeStream();
    assert.deepEqual(await stream.output, expected);
    shown(`${provider}: structured output, json_schema and json_object, whole and streamed`);
  }

  for (const stream of [false, true]) {
    const way = stream ? 'streamed' : 'whole';

    const stranger = { ...call, model: chat(model, 'sk-no-such-key') };
    const unauthorized = await refusal(stranger, stream);
    assert.equal(unauthorized.statusCode, 401);
    assert.equal(unauthorized.data.error.code, 'invalid_api_key');
    shown(`${provider}: a wrong key, ${way}: APICallError`);

    const unknown = await refusal({ ...call, model: chat('no-such-model', GATEWAY_KEY) }, stream);
    assert.equal(unknown.statusCode, 404);
    assert.equal(unknown.data.error.code, 'model_not_found');
    shown(`${provider}: an unknown model, ${way}: APICallError`);

    const picture = await refusal({ ...call, messages: question(gif, 'image/gif') }, stream);
    assert.equal(picture.statusCode, 400);
    assert.equal(picture.isRetryable, false);
    assert.ok(picture.data.error.code);
    shown(`${provider}: a GIF, ${way}: APICallError`);

    if (GATEWAY_ONLY === '1') {
      const system = { ...call, instructions: 'You are a careful reader.' };
      const refused = await refusal(system, stream);
      assert.equal(refused.statusCode, 400);
      assert.equal(refused.data.error.code, 'invalid_parameter_error');
      assert.match(refused.message, /system/);
      shown(`${provider}: a system message, ${way}: APICallError`);
    }
  }

  if (GATEWAY_ONLY === '1') {
    const tools = { save: tool({ description: 'Saves it.', inputSchema: schema }) };
    const refused = await refusal({ ...call, tools }, false);
    assert.equal(refused.data.error.param, '/tools');
    shown(`${provider}: a tool: APICallError that names tools`);
  }
}

{
  const limited = question(png, 'image/png', {
    providerOptions: { openaiCompatible: { max_pixels: small } },
  });
  const call = { model: providers['openai-compatible'].chat(model, GATEWAY_KEY), messages: limited };
  const { usage } = await generateText(call);
  assert.ok(usage.raw.prompt_tokens_details.image_tokens <= smallTokens);
  shown('openai-compatible: max_pixels beside image_url makes the image cheaper');
}
