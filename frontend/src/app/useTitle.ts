import { useEffect } from 'react';

/** The tab's title, and a ring around its icon while something is under way. `progress` in percent. */
export function useTitle(title: string, progress: number | null = null): void {
  useEffect(() => {
    document.title = title ? `${title} · HyperGPU` : 'HyperGPU';
  }, [title]);
  const rounded = progress === null ? null : Math.round(progress / 2) * 2;
  useEffect(() => {
    const icon = document.querySelector<HTMLLinkElement>('#favicon');
    if (!icon || rounded === null) return;
    const plain = icon.href;
    icon.href = `data:image/svg+xml,${encodeURIComponent(ring(rounded))}`;
    return () => {
      icon.href = plain;
    };
  }, [rounded]);
}

function ring(percent: number): string {
  const length = 2 * Math.PI * 13;
  const circle = (color: string, dash: string) =>
    `<circle cx="16" cy="16" r="13" fill="none" stroke="${color}" stroke-width="5" stroke-dasharray="${dash}" transform="rotate(-90 16 16)"/>`;
  const done = percent >= 100 ? '#1ea36a' : '#2352d8';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${circle('#9aa7bd66', 'none')}${circle(done, `${(length * percent) / 100} ${length}`)}<circle cx="16" cy="16" r="5" fill="${done}"/></svg>`;
}
