// What the tables of the site share: DataTables without its own furniture, and headings that Space sorts as Enter does.
"use strict";
function makeTable(element, options = {}) {
  element.addEventListener("keydown", (event) => {
    if (event.key !== " " || !event.target.matches("thead [role=button]")) return;
    event.preventDefault();
    event.target.click();
  });
  return new DataTable(element, {
    autoWidth: false,
    info: false,
    paging: false,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    ...options,
  });
}

// Tables of results: numbers sort by size whatever their unit, after what was not measured and before what is broken.
document.addEventListener("DOMContentLoaded", () => {
  const units = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  const size = (text) => {
    const [number, unit] = text.replaceAll(",", "").split(" ");
    return parseFloat(number) * (units[unit] ?? 1);
  };
  for (const table of document.querySelectorAll(".pb-sortable table")) {
    const numeric = [...table.tHead.rows[0].cells].map((head) => head.classList.contains("pb-number"));
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => {
        const other = cell.querySelector(".pb-broken") ? Number.MAX_VALUE : -1;
        if (numeric[column]) cell.dataset.order = cell.classList.contains("pb-number") ? size(cell.textContent) : other;
      });
    }
    makeTable(table, { searching: false });
  }
});
