// Refreshes the parts of the page in place. Without this script the page loads itself again now and then.
"use strict";

const EVERY = 2000;
const notice = document.getElementById("notice");
const sections = [...document.querySelectorAll("main > section[id]")];
let shown = {};

async function refresh() {
  if (document.hidden || !sections.length) return;
  try {
    const answer = await fetch("/api/parts", { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
    show(await answer.json());
    tell("");
  } catch (error) {
    tell(`No news since ${new Date().toLocaleTimeString()}: ${error.message}. Still trying.`);
  }
}

function show(parts) {
  for (const section of sections) {
    const html = parts[section.id];
    if (html === undefined || html === shown[section.id]) continue;
    const focused = section.contains(document.activeElement) ? document.activeElement.id : "";
    // The server has escaped every text in it, and the page's policy runs no script but this file.
    section.innerHTML = html;
    shown[section.id] = html;
    const again = focused && document.getElementById(focused);
    if (again) again.focus();
  }
}

function tell(text) {
  if (notice.textContent === text || (text && notice.textContent)) return;
  notice.textContent = text;
  notice.hidden = !text;
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!sections.length || !form.action.endsWith("/cancel")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
  } finally {
    refresh();
  }
});

document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY);
