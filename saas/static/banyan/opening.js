// The preview of a brand (the wizard's, and its form's in the admin) and the wizard's prices as one types, and the checklist's steps looked at without leaving the page.
(() => {
  const preview = document.querySelector("[data-preview]");
  const field = (name) => document.querySelector(`:is([data-opening], #branding_form) [name="${name}"]`);
  if (preview) {
    const show = (name, text) => preview.querySelectorAll(`[data-show="${name}"]`).forEach((node) => (node.textContent = text));
    const logo = preview.querySelector('[data-show="logo"]');
    logo.addEventListener("error", () => logo.removeAttribute("src"));
    const draw = () => {
      const title = (field("title") ?? field("name"))?.value.trim();
      if (title) show("title", title);
      if (field("slogan")) show("slogan", field("slogan").value);
      const welcome = preview.querySelector('[data-show="welcome"]');
      if (field("welcome")) welcome.textContent = field("welcome").value || welcome.dataset.empty;
      preview.style.setProperty("--brand", field("primary_color")?.value || preview.dataset.color);
      const address = field("logo_url")?.value ?? logo.dataset.src ?? "";
      if (/^https:\/\/.+/.test(address)) logo.src = address;
      else logo.removeAttribute("src");
    };
    document.addEventListener("input", draw);
    draw();
  }

  const NEEDED = {
    wechat: ["merchant_id", "merchant_app_id", "certificate_serial", "private_key", "api_v3_key", "platform_key_id", "platform_public_key"],
    wechat_virtual: ["merchant_id", "merchant_app_id", "app_key", "message_token", "message_key"],
    alipay: ["merchant_id", "merchant_app_id", "private_key", "platform_public_key"],
    stripe: ["merchant_id", "secret_key", "webhook_secret"],
  };
  const channel = field("channel");
  if (channel) {
    const draw = () => {
      for (const node of channel.form.querySelectorAll(".field")) {
        const name = node.querySelector("[name]")?.name;
        node.hidden = name !== "channel" && !(NEEDED[channel.value] ?? []).includes(name);
      }
    };
    channel.addEventListener("change", draw);
    draw();
  }

  const markup = field("markup");
  if (markup) {
    const template = field("template");
    const draw = () => {
      for (const list of document.querySelectorAll("[data-prices]")) {
        list.hidden = Boolean(template?.value) && list.dataset.prices !== template.value;
        const percent = Number(markup.value === "" ? list.dataset.markup : markup.value);
        if (!(percent >= 0)) continue;
        for (const cell of list.querySelectorAll("[data-pays]")) {
          // In whole fen, rounded up, as the service does.
          const fen = Math.ceil((Math.ceil((Number(cell.dataset.pays) * (100 + percent)) / 100)) / 10000);
          cell.textContent = `¥${fen / 100}`;
        }
      }
    };
    document.addEventListener("input", draw);
    draw();
  }

  const list = document.querySelector("[data-checklist]");
  if (!list) return;
  const draw = ({ steps, done }) => {
    for (const step of steps) {
      const row = list.querySelector(`[data-step="${step.kind}"]`);
      if (!row) continue;
      row.className = step.state;
      row.querySelector("[data-text]").textContent = step.text;
      row.querySelector("[data-label]").textContent = step.label;
    }
    const all = document.querySelector("[data-all]");
    all.classList.toggle("done", done);
    all.textContent = done ? all.dataset.done : all.dataset.open;
  };
  const look = async (form) => {
    const row = form.closest("[data-step]");
    row.className = "busy";
    row.querySelector("[data-label]").textContent = list.dataset.wait;
    const body = new FormData(form);
    body.set("do", "look");
    const answer = await fetch(form.getAttribute("action") || location.href, { method: "POST", body, headers: { Accept: "application/json" } });
    const said = await answer.json();
    if (answer.ok) draw(said);
    else {
      row.className = "red";
      row.querySelector("[data-label]").textContent = "";
      row.querySelector("[data-text]").textContent = said.msg;
    }
  };
  list.addEventListener("submit", (event) => {
    if (event.submitter?.value !== "look") return;
    event.preventDefault();
    look(event.target).catch(() => event.target.submit());
  });
  const lookAtAll = async () => {
    for (const form of list.querySelectorAll("form")) await look(form).catch(() => undefined);
  };
  if (list.hasAttribute("data-run")) lookAtAll();
})();
