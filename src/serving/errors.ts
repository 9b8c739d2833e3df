/** What a client sees when something is wrong: always {"error":{message,type,param,code}} with the status that fits. */
import { InputError } from "../errors.ts";
import { EngineFailure } from "./client.ts";

export type ErrorStatus = 400 | 401 | 404 | 405 | 409 | 413 | 415 | 429 | 500 | 503;

export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: ErrorStatus,
    message: string,
    readonly code: string,
    /** The field that is wrong. */
    readonly param: string | null = null,
    readonly headers: Readonly<Record<string, string>> = {},
    /** For the log alone: it may name folders of this machine. */
    readonly detail: string | null = null,
  ) {
    super(message);
  }
}

export function badRequest(message: string, param: string | null = null, code = "invalid_value"): ApiError {
  return new ApiError(400, message, code, param);
}

/** Any error as one for the client; our own bugs say nothing of what went wrong inside. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof InputError) return badRequest(error.message);
  if (error instanceof EngineFailure) {
    return new ApiError(503, "The engine has stopped; the server is going down.", "engine_stopped");
  }
  return new ApiError(500, "Something went wrong in the server; its log has the details.", "internal_error");
}

const TYPES: Readonly<Record<ErrorStatus, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  404: "invalid_request_error",
  405: "invalid_request_error",
  409: "invalid_request_error",
  413: "invalid_request_error",
  415: "invalid_request_error",
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export function errorBody({ message, status, param, code }: ApiError): ErrorBody {
  return { error: { message, type: TYPES[status], param, code } };
}

export function errorResponse(error: ApiError): Response {
  return Response.json(errorBody(error), { status: error.status, headers: { ...error.headers } });
}
