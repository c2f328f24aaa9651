// The filter of the scoreboard: it hides rows of both tables of claims, which are whole without it. The view stands
// in the address behind `#` (`#paper=wanda&verdict=fails`), so that it can be shared and is restored.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".pb-filter");
  const selects = [...form.querySelectorAll("select")];
  const rows = [...document.querySelectorAll(".pb-claims tbody tr")];

  const show = () => {
    const wanted = selects.filter((select) => select.value);
    for (const row of rows) row.hidden = !wanted.every((select) => row.dataset[select.name] === select.value);
    const count = rows.filter((row) => !row.hidden).length;
    form.querySelector(".pb-shown").textContent = `${count} of ${rows.length} claims`;
  };

  const remember = () => {
    const view = new URLSearchParams(selects.filter((select) => select.value).map((select) => [select.name, select.value]));
    history.replaceState(null, "", location.href.split("#")[0] + (view.size ? `#${view}` : ""));
  };

  const restore = () => {
    if (location.hash && !location.hash.includes("=")) return show(); // an anchor of the page
    const view = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) select.value = view.get(select.name) ?? "";
    for (const select of selects) if (select.selectedIndex < 0) select.value = "";
    show();
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    show();
    remember();
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const select of selects) select.value = "";
    show();
    remember();
  });
  window.addEventListener("hashchange", restore);
  form.hidden = false;
  restore();
});
