/** Calls the HTTP interface: JSON in and out, session cookie, CSRF header, one error class. */

export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  readonly data: Record<string, unknown>;

  constructor(code: string, message: string, status: number, data: Record<string, unknown> = {}) {
    super(message);
    this.name = 'ApiError';
    this.code = code;
    this.status = status;
    this.data = data;
  }
}

type Options = { body?: unknown; raw?: Blob; headers?: Record<string, string>; signal?: AbortSignal };

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return call<T>('GET', path, { signal });
}

export async function post<T>(path: string, options: Options = {}): Promise<T> {
  // Django hands out the CSRF cookie with the session; a page kept open across a cookie wipe asks for it again.
  if (!csrfToken()) await call('GET', '/api/v1/auth/session', {});
  return call<T>('POST', path, options);
}

async function call<T>(method: string, path: string, { body, raw, headers, signal }: Options): Promise<T> {
  const sent: Record<string, string> = { Accept: 'application/json', ...headers };
  if (method !== 'GET') sent['X-CSRFToken'] = csrfToken();
  if (!raw && method !== 'GET') sent['Content-Type'] = 'application/json';
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      headers: sent,
      credentials: 'same-origin',
      body: method === 'GET' ? undefined : (raw ?? JSON.stringify(body ?? {})),
      signal,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(
      'page.unreachable',
      'The HyperGPU server cannot be reached. Check your connection; the page keeps trying.',
      0,
    );
  }
  if (!response.ok) throw await refusal(response);
  return (await response.json()) as T;
}

/** The server's own code and sentence; something readable when what answered was not our server. */
async function refusal(response: Response): Promise<ApiError> {
  const value: unknown = await response.json().catch(() => null);
  if (value && typeof value === 'object' && 'code' in value && 'message' in value) {
    const { code, message, data } = value as {
      code: string;
      message: string;
      data?: Record<string, unknown>;
    };
    return new ApiError(code, message, response.status, data);
  }
  return new ApiError(
    `http.${response.status}`,
    `The server answered ${response.status} ${response.statusText}`.trim(),
    response.status,
  );
}

function csrfToken(): string {
  return /(?:^|;\s*)csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? '';
}
