// The explorer of the landing page: filters over the table that the page already has. The view stands in the
// address behind `#` (`#q=mask&type=Unstructured&sort=year:desc`), so that it can be shared and is restored.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".pb-tools");
  const element = document.querySelector(".pb-papers");
  const names = [...element.querySelectorAll("thead th")].map((head) => head.dataset.name);
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const facets = [...new Set(boxes.map((box) => box.name))];
  const rows = [...element.tBodies[0].rows];
  const valuesOf = new Map(rows.map((row) => [row, JSON.parse(row.dataset.facets)]));
  const toggle = form.querySelector(".pb-toggle");

  const table = makeTable(element, {
    language: { emptyTable: "No papers yet.", zeroRecords: "No paper fits: clear a filter or the search." },
  });

  const chosen = () => {
    const found = new Map(facets.map((facet) => [facet, new Set()]));
    boxes.filter((box) => box.checked).forEach((box) => found.get(box.name).add(box.value));
    return found;
  };

  let wanted = chosen();
  // a paper fits where each facet that is in use has one of its values
  table.search.fixed("facets", (text, data, index) => {
    const values = valuesOf.get(table.row(index).node());
    return [...wanted].every(([facet, set]) => !set.size || values[facet].some((value) => set.has(value)));
  });

  const order = () => {
    const [first] = table.order();
    return first && first[1] ? `${names[first[0]]}:${first[1]}` : "";
  };

  const address = () => {
    const view = new URLSearchParams();
    if (form.q.value.trim()) view.set("q", form.q.value.trim());
    boxes.filter((box) => box.checked).forEach((box) => view.append(box.name, box.value));
    if (order()) view.set("sort", order());
    return view.size ? `#${view}` : "";
  };

  let current = "";
  const remember = (replace) => {
    const next = address();
    if (next === current) return;
    current = next;
    const url = location.href.split("#")[0] + next;
    if (replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
  };

  const show = () => {
    wanted = chosen();
    table.search(form.q.value).draw();
    for (const group of form.querySelectorAll(".pb-facet")) {
      const count = group.querySelectorAll("input:checked").length;
      group.querySelector(".pb-chosen").textContent = count ? ` (${count})` : "";
      group.classList.toggle("pb-used", count > 0);
    }
    const used = boxes.filter((box) => box.checked).length;
    toggle.textContent = used ? `Filters (${used})` : "Filters";
    const count = table.rows({ search: "applied" }).count();
    form.querySelector(".pb-shown").textContent = `${count} of ${rows.length} papers`;
    form.sort.value = order();
  };

  let ordered = "";
  const sort = (text) => {
    const [name, direction] = text.split(":");
    const column = names.indexOf(name);
    table.order(column < 0 || !["asc", "desc"].includes(direction) ? [] : [[column, direction]]);
    ordered = order();
  };

  const restore = () => {
    const hash = location.hash;
    if (!hash || hash.includes("=")) { // else it is an anchor of the page
      const view = new URLSearchParams(hash.slice(1));
      form.q.value = view.get("q") ?? "";
      for (const box of boxes) box.checked = view.getAll(box.name).includes(box.value);
      sort(view.get("sort") ?? "");
      current = address();
    }
    show();
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    form.q.value = "";
    for (const box of boxes) box.checked = false;
    sort("");
    show();
    remember(false);
  });
  form.addEventListener("input", (event) => {
    if (event.target.name === "sort") sort(event.target.value);
    show();
    remember(event.target.name === "q");
  });
  table.on("order", () => {
    if (order() === ordered) return; // not by a heading
    ordered = order();
    form.sort.value = ordered;
    remember(false);
  });
  toggle.addEventListener("click", () => {
    const open = form.classList.toggle("pb-open");
    toggle.setAttribute("aria-expanded", open);
  });
  // an open list of a facet closes like a menu: by Escape, or a click or the focus elsewhere
  const close = (except) => {
    if (getComputedStyle(toggle).display !== "none") return; // on a phone they stay as the reader left them
    form.querySelectorAll(".pb-facet[open]").forEach((group) => group.contains(except) || (group.open = false));
  };
  form.addEventListener("keydown", (event) => {
    const group = event.key === "Escape" && event.target.closest(".pb-facet[open]");
    if (!group) return;
    group.open = false;
    group.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => close(event.target));
  document.addEventListener("focusin", (event) => close(event.target));

  window.addEventListener("popstate", restore);
  window.addEventListener("hashchange", () => location.hash !== current && restore());
  form.hidden = false;
  restore();
});
