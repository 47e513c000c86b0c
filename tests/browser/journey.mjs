/**
 * What a stranger does with a wallet: connect, sign in, register a node with stake, bid, post a job, see it train and
 * why it paid what it did, accept a round, reload.
 *
 * node journey.mjs <page> <private key> <registration link> <folder for pictures>
 * Prints one JSON line with what was seen. Any step that does not happen ends with exit code 1 and a picture.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { launch } from './chromium.mjs';
import { TestWallet } from './wallet.mjs';

const [url, privateKey, link, pictures] = process.argv.slice(2);
const wallet = new TestWallet(privateKey);
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
await wallet.install(context);
const page = await context.newPage();
page.setDefaultTimeout(30_000);
const complaints = [];
page.on('pageerror', (error) => complaints.push(String(error)));

const at = (id) => page.getByTestId(id);
/** What the network broke off (net::ERR_NETWORK_CHANGED, say) is opened again, once, as a person would. */
const open = (address) =>
  page.goto(address).catch((error) => {
    if (!error.message.includes('net::')) throw error;
    console.error(`  opened again: ${error.message.split('\n')[0]}`);
    return page.goto(address);
  });
const step = (text) => console.error(`- ${text}`);
const kinds = () => wallet.prompts.map(({ kind }) => kind);
const recorded = (title) =>
  page.locator('[data-testid=transaction][data-stage=recorded]', { hasText: title }).first().waitFor();

try {
  await connect();
  await signIn();
  const node = await registerNode();
  await bid();
  const job = await postJob();
  const seen = await watch();
  await judge();
  await accept();
  await operator();
  await reload(seen);
  assert.deepEqual(complaints, [], 'the page threw');
  console.log(JSON.stringify({ address: wallet.address, node, job, prompts: kinds(), ...seen }));
} catch (error) {
  console.error(
    `at ${page.url()}\nprompts: ${JSON.stringify(wallet.prompts)}\npage errors: ${complaints.join('\n')}\n${error.stack}`,
  );
  await page
    .screenshot({ path: join(pictures, 'failure.png'), fullPage: true })
    .catch((missed) => console.error(`no picture: ${missed.message}`));
  console.error(`failed: ${error.message.split('\n')[0]}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function connect() {
  step('a declined connection changes nothing, the next one connects');
  await open(url);
  wallet.rejectNext = true;
  await at('connect-wallet').click();
  await at('wallet-test.wallet').click();
  await page.getByText(/declined/i).waitFor();
  await at('wallet-test.wallet').click();
  await at('wallet-address').waitFor();
}

async function signIn() {
  step('sign in with a message that names this site');
  await at('sign-in').click();
  await at('session-address').waitFor();
  assert.equal(
    (await at('session-address').getAttribute('data-address')).toLowerCase(),
    wallet.address.toLowerCase(),
  );
  const { text } = wallet.prompts.find(({ kind }) => kind === 'sign message');
  assert.match(text, new RegExp(`^${new URL(url).host} wants you to sign in with your Ethereum account:`));
  assert.ok(text.includes(wallet.address));
}

async function registerNode() {
  step('register a node with stake, on a chain that the wallet learns on the way');
  await open(link);
  const form = at('register-node');
  await form.getByRole('button', { name: /^Switch to/ }).click();
  await wallet.prompted('add chain');
  await form.getByRole('button', { name: /^Switch to/ }).waitFor({ state: 'detached' });
  await at('get-test-gas').or(at('get-test-tokens')).first().waitFor();
  await form.getByTestId('get-test-tokens').click();
  await getGasWhenAsked();
  await page.waitForFunction(() => !document.querySelector('[data-testid=register-submit]')?.disabled);
  await at('register-submit').click();
  const own = at('own-node').first();
  await own.waitFor();
  return Number(await own.getAttribute('data-node-id'));
}

/** A new wallet owns nothing: the first transaction says so and offers test gas. */
async function getGasWhenAsked() {
  const gas = at('get-test-gas').first();
  const ready = page.locator('[data-testid=register-submit]:enabled');
  await gas.or(ready).first().waitFor();
  if (!(await gas.isVisible())) return;
  await gas.click();
  await page.getByText('You have test gas now').first().waitFor();
  await at('register-node').getByTestId('get-test-tokens').click();
}

async function bid() {
  step('sign a standing bid');
  await at('bid-price').first().fill('4');
  await at('bid-submit').first().click();
  await page.getByText('A bid stands').first().waitFor();
  const { primaryType, message } = wallet.prompts.findLast(({ kind }) => kind === 'sign typed data');
  assert.equal(primaryType, 'Bid');
  assert.equal(String(message.rate), '4');
}

async function postJob() {
  step('write a job, lock its escrow');
  await open(`${url}/new`);
  await at('preset-digits').click();
  await at('new-job-name').fill('Digits from a browser');
  await at('new-job-rounds').fill('4');
  await at('new-job-nodes').fill('2');
  await at('new-job-submit').click();
  await at('fund-submit').click();
  await page.waitForURL(/\/jobs\/\d+$/);
  const asked = wallet.prompts.slice(-2).map(({ kind, primaryType }) => primaryType ?? kind);
  assert.deepEqual(asked, ['Permit', 'send'], 'a deposit is one signature and one transaction');
  return Number(page.url().split('/').at(-1));
}

async function watch() {
  step('see the first live point of the loss curve, without reloading');
  const points = page.locator('[data-testid=loss-points]:not([data-count="0"])');
  await points.first().waitFor();
  const first = Number(await points.first().getAttribute('data-count'));
  step('see a payment that is final');
  await page.locator('[data-testid=payment-row][data-state=final]').first().waitFor({ timeout: 60_000 });
  await page.screenshot({ path: join(pictures, 'job.png') });
  return { points: first, state: await at('job-state').getAttribute('data-state') };
}

async function judge() {
  step('see who scored a payment, and that the median makes its amount');
  await page
    .locator('[data-testid=payment-row][data-state=final]')
    .getByTestId('payment-detail-open')
    .first()
    .click();
  await page.locator('[data-testid=judging][data-agrees=true]').waitFor();
  assert.ok((await at('attestor-row').count()) >= 3);
  await page.screenshot({ path: join(pictures, 'judging.png') });
  await page.keyboard.press('Escape');
}

async function accept() {
  step('accept what is settled, as the requester');
  await at('accept-rounds').click();
  await recorded('Accept ');
}

async function operator() {
  step('see where an operator has its money: credited, free, waiting, out, at risk');
  const job = page.url();
  await open(`${url}/operators`);
  await page.locator('[data-testid=node-row] a[href^="/operators/"]').first().click();
  const amounts = page.locator('[data-testid=operator-money] dd.big', { hasText: /[1-9]/ });
  // One's own new operator has a stake only; those that trained are credited too.
  await amounts.first().waitFor();
  await page.screenshot({ path: join(pictures, 'operator.png') });
  await open(job);
}

async function reload({ points }) {
  step('reload: session, curve and payments are all there again');
  await page.reload();
  await at('session-address').waitFor();
  await page.locator('[data-testid=payment-row][data-state=final]').first().waitFor();
  const again = page.locator('[data-testid=loss-points]:not([data-count="0"])').first();
  await again.waitFor();
  assert.ok(Number(await again.getAttribute('data-count')) >= points);
}
