// browse.cjs URL TOKEN_FILE OUT: opens every page in a real Chromium, wide and narrow, light and dark, and checks it.
//
// Of each page: it answers as it should, nothing is said on the console, no request fails or leaves the server, axe-core
// finds nothing serious, and only boxes of its own scroll sideways. Of a run: the curves have the table's numbers, and a link
// holds the view. Of a failed evaluation: the form tries it again. Pictures go to OUT.

const { readFileSync } = require("node:fs");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { chromium } = require("playwright-core");
const axe = require("axe-core");
const sharp = require("sharp");

const [url, tokenFile, out] = process.argv.slice(2);
const token = readFileSync(tokenFile, "utf8").trim();
const LIGHT_AND_DARK = ["light", "dark"];
const WIDTHS = { wide: { width: 1440, height: 900 }, narrow: { width: 390, height: 844 } };
const LONG = process.env.LONG_RUN;

let nChecks = 0;
const short = [];
function check(text, holds, found) {
    nChecks += 1;
    if (!holds) short.push(`${text}${found === undefined ? "" : `: ${JSON.stringify(found).slice(0, 600)}`}`);
}

async function api(path) {
    const answer = await fetch(`${url}/api/v1${path}`, { headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
    return answer.json();
}

async function evaluation(state) {
    const { items } = await api(`/evaluations?state=${state}`);
    if (!items.length) throw new Error(`no evaluation is ${state}`);
    return items[0];
}

// What is opened: a name, a path, and what differs from the usual. `shot` says in which forms a picture is kept.
const ALL = /./;
const ONE = /^wide-light$/;
async function pages() {
    const run = "/runs/lab/small-llama";
    const [done, failed, leased, queued] = await Promise.all(["done", "failed", "leased", "queued"].map(evaluation));
    return [
        { name: "login", path: "/login", anonymous: true },
        { name: "runs", path: "/", shot: ALL },
        { name: "runs-pattern", path: "/?pattern=lab/*" },
        { name: "run", path: `${run}?x_scale=log`, shot: ALL },
        { name: "run-usual", path: run },
        { name: "run-tokens", path: `${run}?x=tokens&y_scale=log&x_scale=log&stderr=off` },
        { name: "run-metric", path: `${run}?metric=acc&panels=metric&x_scale=log`, shot: ONE },
        { name: "run-window", path: `${run}?from=500&to=1500&task=local_piqa` },
        { name: "run-nothing", path: `${run}?task=unknown` },
        { name: "run-empty", path: "/runs/lab/empty" },
        { name: "run-long-name", path: `/runs/${LONG}` },
        { name: "checkpoint", path: `${run}/checkpoints/3000`, shot: ALL },
        { name: "checkpoint-by-tag", path: `${run}/checkpoints/best%2Fbits-per-byte` },
        { name: "checkpoint-long-name", path: `/runs/${LONG}/checkpoints/1` },
        { name: "evaluations", path: "/evaluations?refresh=off", shot: ALL },
        { name: "evaluations-done", path: "/evaluations?state=done" },
        { name: "evaluations-run", path: "/evaluations?run=lab/small-llama" },
        { name: "evaluation-done", path: `/evaluations/${done.id}` },
        { name: "evaluation-failed", path: `/evaluations/${failed.id}`, shot: ONE },
        { name: "evaluation-leased", path: `/evaluations/${leased.id}?refresh=off` },
        { name: "evaluation-queued", path: `/evaluations/${queued.id}?refresh=off` },
        { name: "docs", path: "/docs", shot: ALL },
        { name: "unknown-run", path: "/runs/lab/unknown", status: 404 },
        { name: "unknown-parameter", path: `${run}?colour=red`, status: 400 },
    ];
}

// Everything that a page does beside being shown: what it says, and whom it asks.
function watch(page, name, status) {
    const host = new URL(url).host;
    page.on("console", (said) => {
        const expected = status >= 400 && said.text().includes(`status of ${status}`);
        check(`${name} says nothing on the console`, expected, said.text());
    });
    page.on("pageerror", (error) => check(`${name} has no error`, false, error.message));
    page.on("requestfailed", (request) => check(`${name} gets all it asks for`, false, request.url()));
    page.on("request", (request) => check(`${name} asks no other host`, new URL(request.url()).host === host, request.url()));
    page.on("response", (answer) => {
        const good = answer.status() < 400 || answer.request().isNavigationRequest();
        check(`${name} gets all it asks for`, good, [answer.url(), answer.status()]);
    });
}

// What of the whole page axe-core finds that is serious or worse. Sent by the debugger, which no policy of the page bounds.
async function audit(page, name) {
    await page.evaluate(axe.source);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, impact, nodes } of found.violations) {
        const grave = ["serious", "critical"].includes(impact);
        check(`${name} has nothing that axe-core calls ${impact}`, !grave, [id, nodes.slice(0, 3).map((node) => node.html.slice(0, 200))]);
    }
    check(`${name} was audited`, found.passes.length > 5);
}

// The sideways extent, the headings and landmarks.
async function shape(page, name) {
    const seen = await page.evaluate(() => ({
        over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        h1: document.querySelectorAll("h1").length,
        main: document.querySelectorAll("main").length,
        scopes: [...document.querySelectorAll("th")].every((th) => th.scope),
    }));
    check(`${name} does not scroll sideways`, seen.over <= 0, seen.over);
    check(`${name} has one h1 and one main part`, seen.h1 === 1 && seen.main === 1, seen);
    check(`${name}: every header cell says what it heads`, seen.scopes);
}

// The numbers of each panel, as its points say them, and of the table's columns for it.
const readNumbers = () => {
    const text = (element) => element.textContent.replace(/\s+/g, " ").trim();
    const rows = [...document.querySelectorAll("table.steps tbody tr:not(.note)")];
    const heads = [...document.querySelectorAll("table.steps thead th")];
    const columns = {};
    heads.forEach((head, i) => {
        if (!head.classList.contains("score")) return;
        const small = head.querySelector("small");
        const key = `${text(head).slice(0, -text(small).length).trim()} ${text(small).split(" (")[0]}`;
        const cells = rows.map((row) => row.children[i]).filter((cell) => cell.querySelector("data"));
        columns[key] = (columns[key] ?? []).concat(cells.map(text));
    });
    const panels = {};
    for (const panel of document.querySelectorAll("figure.panel:not(#loss)")) {
        const key = `${text(panel.querySelector(".title"))} ${text(panel.querySelector(".metric"))}`;
        panels[key] = [...panel.querySelectorAll("circle")].map((dot) => dot.parentNode.querySelector("title").textContent.split(": ")[1]);
    }
    const loss = document.querySelectorAll("figure#loss circle").length;
    const losses = rows.filter((row) => text(row.children[2])).length;
    return { columns, panels, loss, losses };
};

async function curves(page, name) {
    const { columns, panels, loss, losses } = await page.evaluate(readNumbers);
    const keys = Object.keys(columns);
    check(`${name}: every column has its panel`, keys.length > 3 && keys.join() === Object.keys(panels).join(), [keys, Object.keys(panels)]);
    for (const key of keys) {
        const same = [...columns[key]].sort().join() === [...(panels[key] ?? [])].sort().join();
        check(`${name}: the points of ${key} are the table's ${columns[key].length} numbers`, same && columns[key].length > 0, [columns[key], panels[key]]);
    }
    check(`${name}: the loss has a point for each step that says it`, loss === losses && loss > 0, [loss, losses]);
}

async function picture(page, name) {
    // Of a long page its beginning, in few colours: these are kept with the code.
    const clip = await page.evaluate(() => ({ x: 0, y: 0, width: innerWidth, height: Math.min(document.body.scrollHeight, innerWidth > 800 ? 1500 : 1700) }));
    const png = await page.screenshot({ fullPage: true, clip, animations: "disabled" });
    await sharp(png).png({ palette: true, colours: 64, effort: 10, compressionLevel: 9 }).toFile(join(out, `${name}.png`));
}

async function logIn(page, path) {
    await page.goto(`${url}${path}`);
    await page.getByLabel("Token").fill(token);
    await page.getByRole("main").getByRole("button", { name: "Log in" }).click();
    await page.waitForURL(`${url}${path}`);
}

// What somebody does with the pages.
async function use(browser) {
    const context = await browser.newContext({ viewport: WIDTHS.wide });
    const page = await context.newPage();
    watch(page, "in use", 200);
    await logIn(page, "/runs/lab/small-llama");
    await page.keyboard.press("Tab");
    const focus = await page.evaluate(() => [document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]);
    check("the first thing that the keyboard reaches leads to the content, and is seen", focus[0] === "skip" && focus[1] !== "none", focus);

    const view = page.getByRole("navigation", { name: "View" });
    await view.getByRole("list", { name: "tasks" }).getByRole("link", { name: "local_piqa" }).click();
    await view.getByRole("list", { name: "x axis" }).getByRole("link", { name: "log" }).click();
    await view.getByRole("list", { name: "standard errors" }).getByRole("link", { name: "hidden" }).click();
    const link = page.url();
    check("the link holds the view", link.endsWith("?task=local_piqa&x_scale=log&stderr=off"), link);
    const here = await page.locator(".panels").innerHTML();
    const other = await browser.newContext({ storageState: await context.storageState() });
    const fresh = await other.newPage();
    await fresh.goto(link);
    const clipped = (markup) => markup.replace(/kuva-clip-\d+/g, "");
    check("and shows it to whoever opens it", clipped(await fresh.locator(".panels").innerHTML()) === clipped(here));
    const [file] = await Promise.all([fresh.waitForEvent("download"), fresh.getByRole("link", { name: "Scores as CSV" }).click()]);
    const lines = readFileSync(await file.path(), "utf8").trim().split("\n");
    const cells = await fresh.locator("table.steps data").count();
    check("the CSV has the table's scores", lines.length - 1 === cells && lines.slice(1).every((line) => line.includes("local_piqa")), [lines.length, cells]);

    const failed = await evaluation("failed");
    await page.goto(`${url}/evaluations/${failed.id}`);
    await page.getByRole("button", { name: /^Retry/ }).click();
    await page.waitForURL(`${url}/evaluations/${failed.id}`);
    const word = await page.locator(".status .badge").innerText();
    check("a failed evaluation is tried again by the form", ["waiting", "running", "failed"].includes(word), word);
    const again = await api(`/evaluations/${failed.id}`);
    check("and the API says so", again.created_at === failed.created_at && again.finished_at !== failed.finished_at, again);

    await page.getByRole("button", { name: "Log out" }).click();
    await page.waitForURL(/\/login/);
    await context.close();
    await other.close();
}

(async () => {
    const profile = mkdtempSync(join(tmpdir(), "fineline-chromium-"));
    const quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync";
    const args = quiet.split(" ").map((flag) => `--${flag}`);
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args, env: { ...process.env, HOME: profile } });
    try {
        const list = await pages();
        for (const [size, viewport] of Object.entries(WIDTHS)) {
            for (const colorScheme of LIGHT_AND_DARK) {
                const context = await browser.newContext({ viewport, colorScheme });
                await logIn(await context.newPage(), "/");
                const stranger = await browser.newContext({ viewport, colorScheme });
                for (const { name, path, status = 200, anonymous, shot } of list) {
                    const which = `${name} (${size}, ${colorScheme})`;
                    const page = await (anonymous ? stranger : context).newPage();
                    watch(page, which, status);
                    const answer = await page.goto(`${url}${path}`, { waitUntil: "networkidle" });
                    check(`${which} answers ${status}`, answer.status() === status, answer.status());
                    await shape(page, which);
                    if (["run", "run-usual"].includes(name)) await curves(page, which);
                    const form = `${size}-${colorScheme}`;
                    if (shot?.test(form) || process.env.ALL_PICTURES) await picture(page, `${name}-${form}`);
                    await audit(page, which);
                    await page.close();
                }
                await context.close();
                await stranger.close();
            }
        }
        await use(browser);
        console.log(`  ${list.length} pages, wide and narrow, light and dark: ${nChecks} checks, ${short.length} fell short`);
    } finally {
        await browser.close();
        rmSync(profile, { recursive: true, force: true });
    }
    for (const text of new Set(short)) console.log(`    SHORT ${text}`);
    process.exit(short.length ? 1 : 0);
})();
