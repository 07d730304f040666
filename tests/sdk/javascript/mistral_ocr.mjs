// Mistral's SDK for JavaScript, `client.ocr`: a PDF, an image, a list of pages, and refused calls. Only `serverURL` and
// `apiKey` differ from a program that calls Mistral.

import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { Mistral } from '@mistralai/mistralai';
import { HTTPValidationError, SDKError } from '@mistralai/mistralai/models/errors';

const { GATEWAY_ADDRESS, GATEWAY_KEY, SPENT_KEY, IMAGE, IMAGE_URL, DOCUMENT, EXPECTED_TEXT } =
  process.env;

const model = 'mistral-ocr-latest';
const shown = (what) => console.log(`shown: ${what}`);
const dataUrl = async (path, type) => `data:${type};base64,${await readFile(path, 'base64')}`;

const client = (apiKey) => new Mistral({ apiKey, serverURL: GATEWAY_ADDRESS });
const mistral = client(GATEWAY_KEY);
const pdf = { type: 'document_url', documentUrl: await dataUrl(DOCUMENT, 'application/pdf') };
const image = { type: 'image_url', imageUrl: await dataUrl(IMAGE, 'image/png') };
const indexes = ({ pages }) => pages.map(({ index }) => index);

{
  const answer = await mistral.ocr.process({ model, document: pdf });
  assert.deepEqual(indexes(answer), [0, 1, 2]);
  for (const { markdown, images, dimensions } of answer.pages) {
    assert.equal(markdown, EXPECTED_TEXT);
    assert.deepEqual(images, []);
    assert.ok(dimensions.width > 0 && dimensions.height > 0 && dimensions.dpi > 0);
  }
  const { size } = await stat(DOCUMENT);
  assert.deepEqual(answer.usageInfo, { pagesProcessed: 3, docSizeBytes: size });
  shown('a PDF of three pages, with usage and dimensions');
}

for (const document of [image, { type: 'image_url', imageUrl: { url: image.imageUrl } }]) {
  const answer = await mistral.ocr.process({ model: null, document });
  assert.deepEqual(indexes(answer), [0]);
  assert.equal(answer.pages[0].markdown, EXPECTED_TEXT);
}
shown('an image in each form, with the default model');

assert.deepEqual(indexes(await mistral.ocr.process({ model, document: pdf, pages: [2, 0] })), [0, 2]);
assert.deepEqual(indexes(await mistral.ocr.process({ model, document: pdf, pages: '1-2' })), [1, 2]);
shown('pages as a list and as a text, from 0');

{
  const schemaDefinition = { type: 'object', properties: { sender: { type: 'string' } } };
  const jsonSchema = { name: 'letter', schemaDefinition };
  const answer = await mistral.ocr.process({
    model,
    document: pdf,
    documentAnnotationFormat: { type: 'json_schema', jsonSchema },
  });
  assert.deepEqual(indexes(answer), [0, 1, 2]);
  assert.deepEqual(Object.keys(JSON.parse(answer.documentAnnotation)), ['sender']);
  shown('fields of the document beside its pages');
}

// The error of a refused call. Any other result ends the program.
async function refusal(expected, client, changed) {
  try {
    await client.ocr.process({ model, document: image, ...changed });
  } catch (error) {
    if (!(error instanceof expected)) throw error;
    return [error, JSON.parse(error.body)];
  }
  assert.fail(`answered in the place of ${expected.name}`);
}

{
  const [error, body] = await refusal(SDKError, client('sk-no-such-key'), {});
  assert.deepEqual([error.statusCode, body.gateway_code], [401, 'unauthorized']);
  shown('a wrong key: SDKError 401');
}

{
  const [error, body] = await refusal(SDKError, mistral, { model: 'no-such-model' });
  assert.deepEqual([error.statusCode, body.gateway_code], [404, 'model_not_found']);
  shown('an unknown model: SDKError 404');
}

{
  const document = { type: 'document_url', documentUrl: IMAGE_URL };
  const [error, body] = await refusal(SDKError, mistral, { document });
  assert.deepEqual([error.statusCode, body.param], [400, 'document.document_url']);
  shown('an address: SDKError 400 that names the member');
}

{
  const [error, body] = await refusal(HTTPValidationError, mistral, { document: pdf, pages: [3] });
  assert.deepEqual([error.statusCode, body.gateway_code], [422, 'page_not_found']);
  assert.ok(error.detail.length > 0);
  shown('a page that does not exist: HTTPValidationError');
}

{
  const [error, body] = await refusal(SDKError, client(SPENT_KEY), { document: pdf });
  assert.deepEqual([error.statusCode, body.gateway_code], [429, 'budget_exhausted']);
  assert.ok(Number(error.headers.get('retry-after')) > 0);
  shown('a budget that is used up: SDKError 429 with Retry-After');
}
