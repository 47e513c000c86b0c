/**
 * A picture of a job page: node screenshot.mjs <page> <job id> <file>
 *
 * The job should be running or done; the page is as wide as a reader's screen and as high as its content.
 */
import { launch } from './chromium.mjs';

const [url, job, file] = process.argv.slice(2);
const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, deviceScaleFactor: 2 });
  await page.goto(`${url}/jobs/${job}`);
  await page.locator('[data-testid=payment-row][data-state=final]').first().waitFor({ timeout: 120_000 });
  // A header that sticks would stand in the middle of a picture that is put together from parts.
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ width: 1280, height: Math.min(height, 1500) });
  await page.waitForTimeout(1500); // curves glide to their place
  await page.screenshot({ path: file });
} finally {
  await browser.close();
}
